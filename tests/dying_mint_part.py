"""A nutshell mint that is killed between any two of its transactions. Run as a script it is that mint.

Each swap, melt and mint of it, and each invoice that it makes, is counted from the moment at which a file `mint.arm`
is written: `{"of": "swap", "nth": 2, "at": 3}` kills the mint in the second swap, once three transactions of it are
done; at 0 it is killed before the first, and at -1 when all is done and the answer is about to go out. A payment over
Lightning counts as a transaction. While a file `mint.steps` is there, the transactions of each are counted in it.

With a folder in `TOY_LIGHTNING` its Lightning node is one on that network (`tests.toy_lightning_part`).
"""

import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # run as a script it finds its neighbours only if it is told where they are
    sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.toy_lightning_part import FOLDER, ToyLightning, backend

SWAP, MELT, MINT, INVOICE = "swap", "melt", "mint", "mint_quote"  # as the methods of nutshell's ledger are called
ANSWER = -1


@dataclass(frozen=True, slots=True)
class MintArm:
    """In which swap, melt, mint or making of an invoice, and after how many of its transactions."""

    of: str
    nth: int
    at: int


def arm_mint(home: Path, what: MintArm) -> None:
    """The mint of this home dies so."""
    fresh = home / "mint.arm.new"
    fresh.write_text(json.dumps({**asdict(what)}), encoding="utf-8")
    fresh.replace(home / "mint.arm")


@dataclass(slots=True)
class _Doing:
    of: str
    at: int | None  # where it ends, if it does
    done: int = 0


@dataclass(slots=True)
class _Fate:
    home: Path
    seen: dict[str, int] = field(default_factory=dict)

    def begins(self, of: str) -> _Doing:
        file = self.home / "mint.arm"
        if not file.exists():
            self.seen.clear()
            return _Doing(of, None)
        what = MintArm(**json.loads(file.read_text(encoding="utf-8")))
        self.seen[of] = self.seen.get(of, 0) + 1
        if (what.of, what.nth) != (of, self.seen[of]):
            return _Doing(of, None)
        return _Doing(of, what.at)

    def reached(self, doing: _Doing, at: int) -> None:
        if doing.at == at:
            (self.home / "mint.arm").unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def ends(self, doing: _Doing) -> None:
        self.reached(doing, ANSWER)
        if (self.home / "mint.steps").exists():
            with (self.home / "mint.steps").open("a", encoding="utf-8") as file:
                file.write(f"{doing.of} {doing.done}\n")


def _join(network: ToyLightning, paid: Callable[[], None]) -> None:
    """The mint's Lightning node is one on this network."""
    import cashu.lightning

    cashu.lightning.FakeWallet = backend(network, paid)


def serve() -> None:
    """Be the mint."""
    from cashu.core.db import Database
    from cashu.mint.ledger import Ledger

    fate, now = _Fate(Path.cwd()), ContextVar[_Doing | None]("now", default=None)
    connect = Database.connect

    def reached() -> None:
        if (doing := now.get()) is not None:
            doing.done += 1
            fate.reached(doing, doing.done)

    @asynccontextmanager
    async def counted(self: Database, *args: Any, **named: Any) -> AsyncIterator[Any]:
        async with connect(self, *args, **named) as connection:
            yield connection
        reached()

    def watched(of: str) -> None:
        real = getattr(Ledger, of)

        async def told(self: Ledger, *args: Any, **named: Any) -> Any:
            doing = fate.begins(of)
            fate.reached(doing, 0)
            token = now.set(doing)
            try:
                answer = await real(self, *args, **named)
            finally:
                now.reset(token)
            fate.ends(doing)
            return answer

        setattr(Ledger, of, told)

    Database.connect = counted
    for of in (SWAP, MELT, MINT, INVOICE):
        watched(of)
    if folder := os.environ.get(FOLDER):
        _join(ToyLightning(Path(folder)), reached)
    from cashu.mint.main import main

    sys.argv = ["mint"]
    main()


if __name__ == "__main__":
    serve()
