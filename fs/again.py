"""Making a change again where somebody else was quicker. Pure."""

from collections.abc import Awaitable, Callable

from core.error import Conflict
from fs.session import Session

_TRIES = 4


async def again(change: Callable[[], Awaitable[None]], session: Session) -> None:
    """Make a change that reads what is there and puts something in its place; again if that is another thing by then.

    In a tick it is made once: whether somebody was quicker shows at the tick's commit, and then the tick runs again.

    Raises:
        Conflict: others were quicker again and again.
        VendoError: as the change.
    """
    for _ in range(_TRIES - 1):
        try:
            return await change()
        except Conflict:
            if session.staged:
                raise
    await change()
