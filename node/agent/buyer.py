"""The built-in program `buyer`: a message becomes a job, and the job's result becomes the answer.

    summarize: <text>        a summary (kind 5001)
    pow: <bits> <note>       proof of work for a note of the agent's (kind 5970)
    ask: <text>              text in, text out (kind 5050)

`[max $0.02]` anywhere before the colon's text limits what it may cost. The message's own id is the job's idempotency
key, so a message that is dealt with twice still buys once.
"""

import re
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import orjson
from pydantic import BaseModel, Field

from core.error import Conflict, InvalidInput, Paused, StoreUncertain, VendoError
from core.identifier import PubKey, is_hex64
from dvm.policy import MARKET
from node.agent.program import Context, Nothing, Program, Trigger
from relays.key import npub, parse_pubkey
from relays.kind import POW_REQUEST, SUMMARY_REQUEST, TEXT_REQUEST

HELP = (
    "I buy work on the Nostr market and answer with the result. Send one of:\n"
    "summarize: <text>\n"
    "pow: <bits> <note>\n"
    "ask: <text>\n"
    'Add "[max $0.02]" after the first word to limit what it may cost.'
)
LEGACY = "nip04"
HELP_EVERY_S = 3_600
MAX_JOBS = 1_000
MAX_HELPED = 1_000
_COMMAND = re.compile(
    # `*+` gives nothing back: a message of many spaces would else be tried at each of them again
    r"\s*+(summari[sz]e|pow|ask)\s*+(?:\[max\s*+\$?\s*+([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*+\])?\s*+:(.*)",
    re.S | re.I,
)
_POW = re.compile(r"\s*([0-9]{1,3})\s+(\S.*)", re.S)
_LIMIT = re.compile(r"^\s*+\[max\s*+\$?\s*+([0-9]{1,6}(?:\.[0-9]{1,6})?)\s*+\]", re.I)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a message asks for. `bits` is for proof of work."""

    kind: int
    text: str
    max_usd: str | None = None
    bits: int = 0


def parse_wish(text: str) -> Wish | None:
    """What a message asks for, or None if it is none of the commands.

    Raises:
        InvalidInput: it is a command without the words it needs.
    """
    found = _COMMAND.fullmatch(text)
    if found is None:
        return None
    word, limit, rest = found[1].lower(), found[2], found[3]
    if limit is None and (inner := _LIMIT.match(rest)) is not None:
        limit, rest = inner[1], rest[inner.end() :]
    if word == "pow":
        parts = _POW.fullmatch(rest)
        if parts is None:
            raise InvalidInput("It goes: pow: <bits> <note>.")
        return Wish(POW_REQUEST, parts[2].strip(), limit, int(parts[1]))
    if not rest.strip():
        raise InvalidInput(f"It goes: {word}: <text>.")
    return Wish(TEXT_REQUEST if word == "ask" else SUMMARY_REQUEST, rest.strip(), limit)


class Purchases(BaseModel):
    """Jobs under way, and for whom; and who was sent the help text when (Unix seconds)."""

    jobs: dict[str, str] = Field(default_factory=dict)
    helped: dict[str, int] = Field(default_factory=dict)


_Context: TypeAlias = Context[Purchases, Nothing]


class Buyer(Program[Purchases, Nothing]):
    """The program."""

    name = "buyer"
    state_type, config_type = Purchases, Nothing

    async def on_trigger(self, ctx: _Context, trigger: Trigger) -> None:
        """Messages become jobs; a job's end becomes an answer; everything else is only noted."""
        if trigger.cause == "message":
            await self._message(ctx, trigger)
        elif trigger.cause == "event" and trigger.payload.get("type") == "job.finished":
            await self._finished(ctx, trigger)

    async def _message(self, ctx: _Context, trigger: Trigger) -> None:
        text = trigger.payload.get("text")
        try:
            wish = parse_wish(text if isinstance(text, str) else "")
            if wish is None:
                await self._help(ctx, trigger)
                return
            if not _may_spend(trigger):
                wish = replace(wish, max_usd="0")
            body = await self._request(ctx, wish)
            answer = orjson.loads(await ctx.fs.call("/compute/new", orjson.dumps(body), trigger.envelope_id))
        except (Conflict, Paused, StoreUncertain):
            raise  # the message waits: it is tried again
        except VendoError as error:
            ctx.log("refused", envelope_id=trigger.envelope_id, code=error.code, message=error.message)
            await _reply(ctx, trigger.sender, f"I cannot do that: {error.message} {error.advice}".strip())
            return
        job_id = str(answer["job_id"])
        _remember(ctx.state.jobs, job_id, trigger.sender, MAX_JOBS)
        ctx.log("job", job_id=job_id, work=wish.kind, envelope_id=trigger.envelope_id)

    async def _request(self, ctx: _Context, wish: Wish) -> dict[str, Any]:
        body: dict[str, Any] = {"kind": wish.kind, "input": wish.text}
        if wish.max_usd is not None:
            body["max_usd"] = wish.max_usd
        if wish.kind == POW_REQUEST:
            pubkey = (await ctx.fs.read("/identity/pubkey")).decode().strip()
            event = {"pubkey": pubkey, "created_at": ctx.now, "kind": 1, "tags": [], "content": wish.text}
            body["input"] = [{"data": orjson.dumps(event).decode(), "type": "text"}]
            body["params"] = {"pow": str(wish.bits)}
        return body

    async def _help(self, ctx: _Context, trigger: Trigger) -> None:
        """The help text, at most once an hour for each sender, so that two programs cannot keep each other talking."""
        last = ctx.state.helped.get(trigger.sender)
        if last is not None and ctx.now - last < HELP_EVERY_S:
            ctx.log("ignored", envelope_id=trigger.envelope_id)
            return
        _remember(ctx.state.helped, trigger.sender, ctx.now, MAX_HELPED)
        await _reply(ctx, trigger.sender, HELP)

    async def _finished(self, ctx: _Context, trigger: Trigger) -> None:
        job = trigger.payload["job"]
        asker = ctx.state.jobs.pop(str(job["job_id"]), None)
        if asker is None:
            ctx.log("unasked", job_id=job["job_id"])
            return
        await _reply(ctx, asker, answer_text(job))


def _may_spend(trigger: Trigger) -> bool:
    """Whether money moves on the word of a message: the operator's, or a contact's that is proven to be theirs.

    Whoever came in by work, by a toll, or because the agent wrote to them is read; NIP-04's cipher proves nothing.
    """
    if trigger.source != "nostr":
        return True
    return trigger.payload.get("contact") is True and trigger.payload.get("protocol") != LEGACY


def answer_text(job: dict[str, Any]) -> str:
    """The answer to a job: its result, and one line that says who did it and what it cost."""
    if isinstance(kept := job.get("kept"), dict):
        path = f"/compute/jobs/{job.get('job_id')}/result"
        return f"The result has {kept.get('bytes')} bytes, too many for a message: {path}\n\n{_cost_line(job)}"
    if job.get("result") is None:
        return f"The job did not succeed: {job.get('error') or job.get('state')}.\n\n{_cost_line(job)}"
    return f"{job['result']}\n\n{_cost_line(job)}"


def _cost_line(job: dict[str, Any]) -> str:
    """Who did it and what it cost; money that is still locked counts as paid until it is back."""
    cost = int(job.get("cost_msat") or 0)
    has_one = job.get("result") is not None or job.get("kept") is not None
    if has_one and job.get("provider") == MARKET:
        return f"— done by {_name(job.get('seller'))} for {_price(job)}"
    if job.get("result") is not None:
        done = f"— no seller delivered it; done by this node's built-in provider ({job.get('seller')}) at cost 0"
        return done if not cost else f"{done}; {cost} msat are with a seller that failed, until they are refunded"
    if cost and not job.get("closed"):
        return f"— {cost} msat are with a seller that failed, until they are refunded"
    return f"— it cost {_price(job)}" if cost else "— it cost nothing"


def _price(job: dict[str, Any]) -> str:
    paid, cost, usd = job.get("paid_msat") or 0, job.get("cost_msat") or 0, job.get("cost_uusd")
    worth = "" if usd is None else f", {usd} µUSD"
    return f"{paid} msat ({cost} msat with fees{worth})"


def _name(seller: Any) -> str:
    return npub(PubKey(seller)) if is_hex64(seller) else "a seller"


def _remember(table: dict[str, Any], name: str, value: Any, most: int) -> None:
    """Add to a bounded table; the oldest go first."""
    table.pop(name, None)
    table[name] = value
    while len(table) > most:
        del table[next(iter(table))]


async def _reply(ctx: _Context, to: str, text: str) -> None:
    """By DM to a person; to anyone else through the trace."""
    if is_hex64(to):
        await ctx.send_dm(parse_pubkey(to), text)
    else:
        ctx.log("reply", to=to, text=text[:8_000])
