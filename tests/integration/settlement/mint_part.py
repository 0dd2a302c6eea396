"""A mint that dies and comes back with what it had, and what it has written of invoices."""

import sqlite3
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from tests import dying_mint_part
from tests.market_part import until
from tests.mint_part import running_mint
from tests.toy_lightning_part import FOLDER, ToyLightning

SCRIPT = Path(dying_mint_part.__file__)
_WAIT_S = 120.0


@dataclass(slots=True)
class Mint:
    """The mint, which comes back at the same address."""

    folder: Path
    network: ToyLightning | None = None  # on which its Lightning node is
    url: str = ""
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    @property
    def home(self) -> Path:
        """Where it works."""
        return self.folder / f"mint-{self.url.rsplit(':', 1)[1]}"

    async def up(self) -> None:
        """See to it that it runs."""
        if self.url and await self._answers():
            return
        await self.down()
        port = int(self.url.rsplit(":", 1)[1]) if self.url else None
        # An invoice that was paid while its owner was dead is minted afterwards, whenever that is.
        told = {"MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT": "0", "MINT_QUOTE_TTL": "86400"}
        extra = {} if self.network is None else {**told, FOLDER: str(self.network.folder)}
        running = running_mint(self.folder, port=port, script=SCRIPT, extra=extra)
        self.url = await self._stack.enter_async_context(running)

    async def down(self) -> None:
        """It runs no more."""
        stack, self._stack = self._stack, AsyncExitStack()
        await stack.aclose()

    async def _answers(self) -> bool:
        try:
            async with aiohttp.ClientSession() as http, http.get(f"{self.url}/v1/info") as answer:
                return answer.status == 200
        except aiohttp.ClientError:
            return False

    async def fell(self, missed: Callable[[], bool]) -> bool:
        """Wait until it is gone, or what it was to die in is `missed`."""
        armed = self.home / "mint.arm"

        async def over() -> bool:
            return missed() if armed.exists() else not await self._answers()

        await until(over, "the mint to die", _WAIT_S)
        if not armed.exists():
            return True
        armed.unlink()
        return False

    # ---- what it was killed in

    def pending(self) -> int:
        """How much it has put aside for what it was killed in, and never looks at again (0.20.2).

        Coins that go into a swap, and the quote of coins that are minted. What it pays it does look at.
        """
        with closing(self._database()) as db:
            coins = db.execute("SELECT count(*) FROM proofs_pending WHERE melt_quote IS NULL").fetchone()[0]
            quotes = db.execute("SELECT count(*) FROM mint_quotes WHERE state = 'PENDING'").fetchone()[0]
        return int(coins) + int(quotes)

    async def freed(self) -> None:
        """Its operator frees that by hand, and starts it again."""
        await self.down()
        with closing(self._database()) as db, db:
            given = "proofs_pending WHERE melt_quote IS NULL"
            for keyset, sat in db.execute(f"SELECT id, sum(amount) FROM {given} GROUP BY id").fetchall():
                db.execute("UPDATE keysets SET balance = balance + ? WHERE id = ?", (sat, keyset))
            db.execute(f"DELETE FROM {given}")
            db.execute("DELETE FROM promises WHERE c_ IS NULL AND mint_quote IN (SELECT quote FROM mint_quotes)")
            db.execute(
                "UPDATE mint_quotes SET state = CASE WHEN quote IN (SELECT mint_quote FROM promises)"
                " THEN 'ISSUED' ELSE 'PAID' END WHERE state = 'PENDING'"
            )
        await self.up()

    # ---- what it says of invoices

    def issued(self, invoices: Iterable[str]) -> dict[str, str]:
        """The state of each invoice of its own that it knows (NUT-04)."""
        return self._states("mint_quotes", invoices)

    def paid(self, invoices: Iterable[str]) -> dict[str, str]:
        """The state of each invoice that it was asked to pay (NUT-05); the furthest, if it was asked several times."""
        return self._states("melt_quotes", invoices)

    def _states(self, table: str, invoices: Iterable[str]) -> dict[str, str]:
        order = ["UNPAID", "PENDING", "PAID", "ISSUED"]
        found: dict[str, str] = {}
        with closing(self._database()) as db:
            for invoice in invoices:
                rows = db.execute(f"SELECT state FROM {table} WHERE request = ?", (invoice.lower(),)).fetchall()
                states = sorted((str(row[0]).upper() for row in rows), key=order.index)
                if states:
                    found[invoice] = states[-1]
        return found

    def _database(self) -> sqlite3.Connection:
        return sqlite3.connect(self.home / "db" / "mint.sqlite3")
