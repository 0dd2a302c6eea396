"""Meeting a remote signer for the first time (NIP-46): at its address, or by giving it ours and waiting."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence

from core.error import InvalidInput, VendoError
from node.identity.registry import Remote
from relays.bunker import PAIR_S, Talk, Wire, pair, user_of
from relays.error import SignerUnavailable
from relays.key import Key
from relays.nip46 import Bunker, connect_uri, parse_bunker

log = logging.getLogger(__name__)

MAX_INVITED = 8


class Pairings:
    """Pairs. A service: `run` holds the invitations that wait for a call, and ends them.

    Args:
        wire: what talks are made of.
        relays: where a signer that we invite is to call.
        name: what it shows to its user.
    """

    def __init__(self, wire: Wire, relays: Sequence[str], name: str) -> None:
        self._wire, self._relays, self._name = wire, relays, name
        self._invited: set[asyncio.Task[None]] = set()

    async def meet(self, uri: str, timeout: float = PAIR_S) -> Remote:
        """Go to a signer's `bunker://` address and introduce a fresh key of ours.

        Raises:
            InvalidInput: it is no such address.
            SignerUnavailable: the signer did not answer in time, or refused.
        """
        bunker, app = parse_bunker(uri), Key.generate()
        talk = Talk(self._wire, app, bunker.signer, bunker.relays)
        address: list[str] = []
        talk.on_address = address.append
        try:
            user = await pair(talk, bunker, timeout)
        except SignerUnavailable as error:
            if address:
                remedy = f"Open this address, say yes, and try again: {address[0]}"
                raise SignerUnavailable(error.message, remedy=remedy) from error
            raise
        finally:
            await talk.aclose()
        return Remote(Bunker(bunker.signer, bunker.relays), app, user)  # the secret is good for one greeting

    def invite(self, then: Callable[[Remote], Awaitable[object]], timeout: float = PAIR_S) -> str:
        """An address for a signer (`nostrconnect://`); `then` is called with it once it has called.

        Raises:
            InvalidInput: too many wait already, or there is no relay.
        """
        if len(self._invited) >= MAX_INVITED:
            raise InvalidInput("Too many invitations wait for a signer.", remedy="Wait two minutes.")
        app, secret = Key.generate(), secrets.token_hex(16)
        uri = connect_uri(app.pubkey, self._relays, secret, self._name)
        talk = Talk(self._wire, app, None, self._relays)
        task = asyncio.create_task(self._wait(talk, app, secret, then, timeout), name="signer invited")
        self._invited.add(task)
        task.add_done_callback(self._invited.discard)
        return uri

    async def _wait(
        self, talk: Talk, app: Key, secret: str, then: Callable[[Remote], Awaitable[object]], timeout: float
    ) -> None:
        try:
            signer = await talk.await_call(secret, timeout)
            user = await user_of(talk)
            await then(Remote(Bunker(signer, tuple(self._relays)), app, user))
        except VendoError as error:
            log.warning("no signer came: %s", error.message, extra={"action": "invitation_ended", "code": error.code})
        finally:
            await talk.aclose()

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Until `stop`; invitations that still wait then end."""
        ready.set()
        try:
            await stop.wait()
        finally:
            waiting = list(self._invited)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
