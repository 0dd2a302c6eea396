"""The keys with which a node authenticates to relays (NIP-42), and the lists by which one of them speaks for many.

A relay that knows two keys on one connection knows that they belong together. So a key is shown only where its
policy allows that, by default to the node's own relays, which see all of its traffic anyway.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence

from core.clock import Clock
from core.error import VendoError
from core.identifier import PubKey
from relays.event import Draft, Event
from relays.keylist import CONSENT_LIFE_S, Consent, consent_draft, consent_of, list_drafts
from relays.kind import CLIENT_AUTH
from relays.signer import Signer

log = logging.getLogger(__name__)

_TURN = 50  # signatures between two looks at other work
_RENEW_S = 86_400  # a consent with less to live is made anew
_BACK_S = 5  # clocks differ; a consent that begins in the relay's future is refused


class Credentials:
    """An `Authenticator` over the node's own key and its agents'.

    Args:
        node: the node's own key: the one that is shown when any will do, and that signs key lists.
        agents: the agents' keys as they are now.
        allowed: whether a relay may be shown a key.
        clock: time.
    """

    def __init__(
        self,
        node: Signer,
        agents: Callable[[], Iterable[Signer]],
        allowed: Callable[[str, PubKey], bool],
        clock: Clock,
    ) -> None:
        self._node = node
        self._agents = agents
        self._allowed = allowed
        self._clock = clock
        self._consents: dict[tuple[str, PubKey], Consent] = {}

    def keys(self, relay: str) -> Sequence[PubKey]:
        """The node's key first, then the agents'; those that the relay may be shown."""
        return [one.pubkey for one in self._signers(relay)]

    def _signers(self, relay: str) -> list[Signer]:
        found = {one.pubkey: one for one in (self._node, *self._agents()) if self._allowed(relay, one.pubkey)}
        return list(found.values())

    async def answer(self, relay: str, challenge: str, pubkey: PubKey) -> Event | None:
        """A signed kind 22242 (NIP-42).

        Raises:
            KindForbidden, SignerUnavailable: the key does not sign it, or not now.
        """
        signer = next((one for one in self._signers(relay) if one.pubkey == pubkey), None)
        if signer is None:
            return None
        tags = (("relay", relay), ("challenge", challenge))
        return await signer.sign(Draft(CLIENT_AUTH, "", tags, self._clock.now()))

    async def lists(self, relay: str, message_bytes: int) -> Sequence[Event]:
        """Key lists (kind 22243) with the consent of each agent whose key may be shown.

        Raises:
            KindForbidden, SignerUnavailable: the node's own key does not sign.
        """
        if not self._allowed(relay, self._node.pubkey):
            return ()
        consents: list[Consent | PubKey] = []
        for n, signer in enumerate(self._signers(relay)):
            if signer.pubkey == self._node.pubkey:
                continue
            consent = await self._consent(relay, signer)
            if consent is not None:
                consents.append(consent)
            if n % _TURN == _TURN - 1:
                await asyncio.sleep(0)
        drafts = list_drafts(relay, consents, self._clock.now(), message_bytes=message_bytes)
        return [await self._node.sign(draft) for draft in drafts]

    async def _consent(self, relay: str, signer: Signer) -> Consent | None:
        now = self._clock.now()
        known = self._consents.get((relay, signer.pubkey))
        if known is not None and known.expires_at - now > _RENEW_S:
            return known
        begin = now - _BACK_S
        try:
            event = await signer.sign(consent_draft(self._node.pubkey, relay, begin, begin + CONSENT_LIFE_S))
        except VendoError as error:
            log.warning(
                "A key is not on the list for %s: %s", relay, error, extra={"action": "no_consent", "code": error.code}
            )
            return None
        consent = self._consents[relay, signer.pubkey] = consent_of(event)
        return consent
