"""The program `webhook`: triggers are sent to an address, signed; the agent there answers at once, or acts over HTTP.

    POST <url>
    X-Vendo-Delivery: the same for every try of a trigger
    X-Vendo-Timestamp: Unix seconds
    X-Vendo-Signature: sha256=<HMAC-SHA256 of "<timestamp>.<body>" under the agent's secret, hex>

    {"agent", "tick_id", "delivery", "now_ms", "until_ms", "trigger", "state", "turn": {"url", "token"}}

The answer 202 says that the agent will act with the token. Another of 200 to 299 ends the turn at once and holds
{"commit": true, "state", "writes"} or {"commit": false, "reason"}. Everything else is a failure, which the inbox tries
again. Who has neither answered nor acted when the time is over is away (`WebhookFailed`); who said 202 and then nothing
is not: it took the trigger, and that is a failure of its own. No redirect is followed, and an address of our own
network is reached only if the agent's settings say so.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from typing import Annotated, Any

import aiohttp
import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from yarl import URL

from core.clock import Clock
from node.agent.outside.act import Act, verdict
from node.agent.outside.error import WebhookFailed
from node.agent.outside.host import Turns
from node.agent.outside.program import Outside
from node.agent.outside.turn import Door, Turn
from node.secret.error import SecretMissing
from node.secret.reference import Reveal, check_setting, no_secrets
from relays.guard import guarded

MAX_ANSWER = 1 << 20
MAX_HEADERS = 20
SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin
_CONNECT_S = 10.0
_TAKEN = 202
_OURS = frozenset({
    "connection", "content-encoding", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer",
    "transfer-encoding", "upgrade", "user-agent",
})  # fmt: skip
Header = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}$")]  # RFC 9110, 5.6.2


class WebhookConfig(BaseModel):
    """Settings of an agent that is reached by webhook.

    Attributes:
        url: where triggers are sent; https, or http with `internal`.
        internal: the address may be one of this machine or of our own network.
        generation: raise it to replace the secret.
        headers: what is sent with each trigger; `secret:<name>` as a value stands for a secret of the agent.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(max_length=2_000)
    internal: bool = False
    generation: int = Field(1, ge=1, le=1_000_000)
    headers: dict[Header, Annotated[str, Field(max_length=4_096)]] = Field(default_factory=dict, max_length=MAX_HEADERS)

    @field_validator("url")
    @classmethod
    def _address(cls, value: str) -> str:
        url = URL(value)
        if url.scheme not in ("http", "https") or not url.host:
            raise ValueError("a webhook's address begins with https://")
        if url.user is not None or url.password is not None:
            raise ValueError("a webhook's address holds no user and no password")
        return value

    @field_validator("headers")
    @classmethod
    def _own(cls, value: dict[str, str]) -> dict[str, str]:
        names = [name.lower() for name in value]
        if len(set(names)) < len(names) or any(name in _OURS or name.startswith("x-vendo-") for name in names):
            raise ValueError("a header is named once, and is none of those that the node sets itself")
        for text in value.values():
            if not is_header(text):
                raise ValueError("a header's value is one line of printable characters")
            check_setting(text, shared=False)  # settings come from archives too, and this is sent elsewhere
        return value

    @model_validator(mode="after")
    def _encrypted(self) -> "WebhookConfig":
        if not self.internal and URL(self.url).scheme != "https":
            raise ValueError("http:// is for addresses inside (internal = true); others begin with https://")
        return self


def is_header(text: str) -> bool:
    """Whether a text can be a header's value."""
    return text.isascii() and text.isprintable()


def secret_text(raw: bytes) -> str:
    """A secret as both sides have it; these characters are the key of the HMAC."""
    return SECRET_PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signature(secret: str, timestamp: int, body: bytes) -> str:
    """What stands in `X-Vendo-Signature`."""
    return "sha256=" + hmac.new(secret.encode(), b"%d." % timestamp + body, hashlib.sha256).hexdigest()


class Webhook(Outside[WebhookConfig]):
    """The program. A service too: `run` owns the connections.

    Args:
        turns: where turns are opened.
        clock: for the time that is left, and the timestamp.
        secret: an agent's, by its name and generation.
        leave: asks the gate whether it may be sent.
        reveal: the value of a header.
    """

    name = "webhook"
    config_type = WebhookConfig

    def __init__(
        self,
        turns: Turns,
        clock: Clock,
        secret: Callable[[str, int], str],
        leave: Callable[[], None],
        reveal: Reveal = no_secrets,
    ) -> None:
        super().__init__(turns, clock)
        self._secret, self._leave, self._reveal = secret, leave, reveal
        self._inside: aiohttp.ClientSession | None = None
        self._public: aiohttp.ClientSession | None = None

    async def run(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        """Be able to connect, until `stop`."""
        async with AsyncExitStack() as stack:
            # The engine bounds how many turns are open; a pool's bound would let those that hang hold up the others.
            self._inside = await stack.enter_async_context(_session(aiohttp.TCPConnector(limit=0)))
            public = aiohttp.TCPConnector(limit=0, socket_factory=guarded)
            self._public = await stack.enter_async_context(_session(public))
            ready.set()
            await stop.wait()

    async def reach(self, brief: Mapping[str, Any], config: WebhookConfig, turn: Turn, door: Door) -> Act | None:
        """See `Outside.reach`."""
        session = self._inside if config.internal else self._public
        if session is None:
            raise WebhookFailed("The node does not run yet.")
        self._leave()
        own = await self._own_headers(turn.agent, config)
        body = orjson.dumps({**brief, "turn": {"url": door.url, "token": door.token}})
        host = URL(config.url).host
        turn.away = WebhookFailed(f"{host} did not answer in time.")
        try:
            async with session.post(
                config.url, data=body, headers={**own, **self._headers(brief, config, body)}, allow_redirects=False
            ) as answer:
                if answer.status == _TAKEN:
                    turn.away = None
                    return None
                if not 200 <= answer.status < 300:
                    raise WebhookFailed(f"{host} answered {answer.status}.")
                raw = await _bounded(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise WebhookFailed(f"{host} did not take it ({type(error).__name__}).") from error
        if (act := verdict(raw.strip())) is None:
            raise WebhookFailed(f'{host} answered {answer.status} without {{"commit": true}}; 202 is for acting later.')
        return act

    async def _own_headers(self, agent: str, config: WebhookConfig) -> dict[str, str]:
        found = {name: await self._reveal(agent, text) for name, text in config.headers.items()}
        for name, value in found.items():
            if not is_header(value):
                raise SecretMissing(
                    f"What {config.headers[name]!r} names cannot be a header: it is not one line of ASCII.",
                    remedy="Set it again.",
                )
        return found

    def _headers(self, brief: Mapping[str, Any], config: WebhookConfig, body: bytes) -> dict[str, str]:
        now = self.clock.now()
        return {
            "Content-Type": "application/json",
            "User-Agent": "vendo",
            "X-Vendo-Delivery": str(brief["delivery"]),
            "X-Vendo-Timestamp": str(now),
            "X-Vendo-Signature": signature(self._secret(str(brief["agent"]), config.generation), now, body),
        }


def _session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S)  # the turn's own end ends a request
    return aiohttp.ClientSession(
        connector=connector, timeout=timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
    )


async def _bounded(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > MAX_ANSWER:
            raise WebhookFailed(f"The answer is longer than {MAX_ANSWER >> 20} MiB.")
    return bytes(body)
