"""`vendo wallet restore`: reads the memos of this node, keeps what they name, and searches every mint."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from node.memo import WalletMemo
from node.recovery import Looked, Recovery, Searched
from node.remainder import Remainder
from wallet.cashu.port import Mint

if TYPE_CHECKING:
    from node.app import Node


@dataclass(frozen=True, slots=True)
class Recall:
    """The parts that it takes; `memo` and `recovery` are services."""

    memo: WalletMemo
    recovery: Recovery
    remainder: Remainder

    async def load(self) -> None:
        """Before anything acts: go on with what an earlier restore began.

        Raises:
            VendoError: the database failed.
        """
        await self.recovery.load()
        await self.remainder.load()

    async def restore(self, relays: Sequence[str]) -> dict[str, Any]:
        """Find everything that the words, our relays and these lead to. Again, it finds what is new since.

        Raises:
            InvalidInput: one of `relays` is no relay's address.
            VendoError: the database failed; what was read is kept, and gone on with at the next start.
        """
        memo, events = await self.memo.read(relays)
        await self.recovery.take_in(memo)
        await self.remainder.listen()
        searched, looked = await self.recovery.look()
        return {
            "restored": [self._found(one) for one in searched],
            "pending": [_entry(one) for one in looked],
            "memos": events,
        }

    def _found(self, one: Searched) -> dict[str, Any]:
        mint = one.restored.mint
        return {**asdict(one.restored), "listed": self.recovery.is_listed(mint), "problem": one.problem}


def _entry(one: Looked) -> dict[str, Any]:
    entry = one.entry
    return {
        "operation": entry.op_id,
        "kind": str(entry.kind),
        "mint": entry.mint,
        "unit": entry.unit,
        "amount": entry.amount,
        "due": entry.due,
        "standing": str(one.standing),
        "problem": one.problem,
    }


def recall_of(node: "Node", connect: Callable[[str], Mint]) -> Recall:
    """Both parts of a node whose relays, gate and wallet are there; `connect` makes a client for a mint's address."""
    memo = WalletMemo(
        node.database,
        node.pool,
        node.outbox,
        node.wallet.recollection,
        node.keyring.node,
        node.clock,
        enabled=node.config.wallet.memo,
    )
    node.wallet.on_change(memo.changed)
    recovery = Recovery(node.wallet, node.treasurer, node.clock, connect)
    return Recall(memo, recovery, Remainder(node.database, node.pool, node.keyring, recovery))
