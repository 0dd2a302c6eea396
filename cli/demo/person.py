"""A person with a key and a client: sends the agent an encrypted DM (NIP-17) and decrypts the reply."""

import time

from cli.demo.wire import Wire
from core.identifier import PubKey
from relays.error import NotForUs
from relays.event import Draft, Event, tags
from relays.key import Key
from relays.kind import DM, GIFT_WRAP
from relays.nip17 import Rumor, unwrap, wrap


class Person:
    """Not a node: one key on one relay."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._read: set[str] = set()
        self.key = Key.generate()

    async def say(self, agent: PubKey, text: str) -> None:
        """Send a DM, with the sender's own copy as NIP-17 asks."""
        draft = Draft(DM, text, tags([["p", agent]]), int(time.time()))
        await self._wire.publish(wrap(self.key, agent, draft))
        await self._wire.publish(wrap(self.key, self.key.pubkey, draft))

    async def hear(self, agent: PubKey, timeout: float) -> Rumor:
        """The agent's next DM, decrypted.

        Raises:
            Unavailable: none came in time.
        """
        event = await self._wire.until(lambda one: self._open(one, agent) is not None, timeout)
        rumor = self._open(event, agent)
        assert rumor is not None
        self._read.add(rumor.id)
        return rumor

    def _open(self, event: Event, agent: PubKey) -> Rumor | None:
        if event.kind != GIFT_WRAP or event.value("p") != self.key.pubkey:
            return None
        try:
            rumor = unwrap(self.key, event)
        except NotForUs:
            return None
        return rumor if rumor.sender == agent and rumor.id not in self._read else None
