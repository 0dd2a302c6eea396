"""The floor of paid work: the swaps of a paid job alone, at the same mint, made by nothing but prepared requests.

A job paid by ecash takes two: the buyer's, which locks the price to the seller's key, and the seller's, which claims
it. All that can be made beforehand is: secrets, blinding, signatures of the first. What the second one spends is the
first one's answer, which is unblinded in between, as a seller has to.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from relays.key import Key
from wallet.cashu.curve import blind
from wallet.cashu.keyset import Keyset, KeysetInfo
from wallet.cashu.lock import Lock
from wallet.cashu.mint import MintClient
from wallet.cashu.proof import Output, Proof, Signature
from wallet.cashu.select import split
from wallet.cashu.signature import unblind, witness

_BATCH = 200  # outputs in one request
_DAY_S = 86_400


@dataclass(slots=True)
class Job:
    """The two swaps of one job, as far as they can be prepared."""

    spent: list[Proof]
    locked: list[Output]
    change: list[Output]
    earned: list[Output]


class Swapper:
    """Holds coins of one mint and swaps them."""

    def __init__(self, http: aiohttp.ClientSession, mint: str) -> None:
        self._http, self._mint = http, mint
        self._key = Key.generate()
        self._keyset: Keyset | None = None

    async def prepare(self, jobs: int, price: int) -> list[Job]:
        """Coins and outputs for as many jobs; each spends coins of one sat more than lock and fees need."""
        client = MintClient(self._mint, self._http, lambda _permit: None)
        info: KeysetInfo = next(one for one in await client.keysets() if one.active and one.unit == "sat")
        self._keyset = await client.keys(info)
        claimed = price + 1  # the fee of the second swap is the seller's price too
        paid = claimed + 2
        coins = await self._minted([amount for _ in range(jobs) for amount in split(paid)])
        width = len(split(paid))
        prepared = []
        for at in range(jobs):
            spent = coins[at * width : (at + 1) * width]
            locked = [self._output(amount, self._lock()) for amount in split(claimed)]
            change = [self._output(amount) for amount in split(paid - claimed - self._fee(width))]
            earned = [self._output(amount) for amount in split(claimed - self._fee(len(locked)))]
            prepared.append(Job(spent, locked, change, earned))
        return prepared

    async def settle(self, job: Job) -> float:
        """Both swaps, one after the other; how long the mint took for them, in ms, with the way there and back."""
        began = time.perf_counter()
        answered = await self._swap(job.spent, [*job.locked, *job.change])
        took = time.perf_counter() - began
        coins = [self._coin(output, one) for output, one in zip(job.locked, answered, strict=False)]
        signed = [coin.signed(witness(coin.secret, self._key)) for coin in coins]
        began = time.perf_counter()
        await self._swap(signed, job.earned)
        return 1e3 * (took + time.perf_counter() - began)

    async def settle_all(self, jobs: Sequence[Job]) -> float:
        """All at once; how long until the last one is done, in ms."""
        began = time.perf_counter()
        await asyncio.gather(*map(self.settle, jobs))
        return 1e3 * (time.perf_counter() - began)

    def _fee(self, inputs: int) -> int:
        assert self._keyset is not None
        return -(-inputs * self._keyset.info.ppk // 1000)

    def _lock(self) -> str:
        lock = Lock("02" + self._key.pubkey, int(time.time()) + _DAY_S, "02" + Key.generate().pubkey)
        return lock.secret(secrets.token_hex(16))

    def _output(self, amount: int, secret: str = "") -> Output:
        assert self._keyset is not None
        secret, r = secret or secrets.token_hex(32), secrets.token_bytes(32)
        return Output(self._keyset.info.id, amount, secret, r.hex(), blind(secret, r))

    def _coin(self, output: Output, said: dict[str, Any]) -> Proof:
        assert self._keyset is not None
        proof = said.get("dleq") or {}
        signature = Signature(said["id"], said["amount"], said["C_"], proof.get("e", ""), proof.get("s", ""))
        return unblind(output, signature, self._keyset.keys[output.amount])

    async def _swap(self, inputs: Sequence[Proof], outputs: Sequence[Output]) -> list[dict[str, Any]]:
        body = {"inputs": [one.to_dict() for one in inputs], "outputs": [one.to_wire() for one in outputs]}
        found: list[dict[str, Any]] = (await self._post("/v1/swap", body))["signatures"]
        return found

    async def _minted(self, amounts: Sequence[int]) -> list[Proof]:
        coins: list[Proof] = []
        for at in range(0, len(amounts), _BATCH):
            outputs = [self._output(amount) for amount in amounts[at : at + _BATCH]]
            asked = {"amount": sum(one.amount for one in outputs), "unit": "sat"}
            quote = await self._post("/v1/mint/quote/bolt11", asked)
            body = {"quote": quote["quote"], "outputs": [one.to_wire() for one in outputs]}
            said = (await self._post("/v1/mint/bolt11", body))["signatures"]
            coins += [self._coin(output, one) for output, one in zip(outputs, said, strict=True)]
        return coins

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        async with self._http.post(self._mint + path, json=body) as answer:
            found: dict[str, Any] = await answer.json()
            if answer.status != 200:
                raise RuntimeError(f"the mint refused {path}: {found}")
            return found
