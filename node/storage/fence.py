"""The fence of a process that shares its database: each of its transactions shows under which lease it writes.

A process is a row `member/<slot>` of table `lease` with a token. Whoever puts it out takes that row FOR UPDATE and
raises the token. So a transaction that locks the row FOR KEY SHARE and finds its own token there ends before the
process can be put out, and one that comes later finds another token and is refused, however long it was on its way.
Renewing changes neither the key nor the token and waits for nobody.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from node.storage.error import Fenced

# The first statement of every transaction that writes. No row: `broken`, and nothing of the transaction may stay.
FENCE_SQL = "SELECT 1 FROM lease WHERE name = $1 AND token = $2 FOR KEY SHARE"
# A process that is stopped in the middle of a transaction holds its row no longer than this: the server ends its
# session (setting `idle_in_transaction_session_timeout` of every connection that writes, in milliseconds).
IDLE_IN_TRANSACTION_MS = 2_000


@dataclass(slots=True)
class Fence:
    """What one process shows. `is_broken`: it was refused once, and nothing that it remembers is to be trusted."""

    name: str
    token: int
    is_broken: bool = False
    _watchers: list[Callable[[], None]] = field(default_factory=list)

    @property
    def params(self) -> tuple[str, int]:
        """The parameters of `FENCE_SQL`."""
        return self.name, self.token

    def on_broken(self, watcher: Callable[[], None]) -> None:
        """Have it called once, when a transaction was refused."""
        self._watchers.append(watcher)

    def broken(self) -> Fenced:
        """A transaction found another token. The error for those who wait for it; the watchers are told."""
        if not self.is_broken:
            self.is_broken = True
            for watcher in self._watchers:
                watcher()
        return Fenced()
