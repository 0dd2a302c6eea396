"""The demo's story: three jobs, asked for by DM, bought from two sellers, checked from outside."""

import asyncio
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from cli.demo import checker
from cli.demo.person import Person
from cli.demo.process import Child, family, start_mint, start_node, start_relay
from cli.demo.screen import Screen
from cli.demo.wire import Wire, stored, watching
from core.identifier import PubKey
from core.money import MicroUsd, Msat, Rate
from node import home
from node.identity.passphrase import make_file
from relays.event import Event
from relays.key import Key, Keyring
from relays.kind import GIFT_WRAP, HANDLER, JOB_FEEDBACK

_DEPOSIT_SAT = 1_000
_REPLY = 90.0
# It ends as soon as both sellers have answered, however slow this machine is.
_PATIENT = ("quote_window_ms = 1500", "quote_window_ms = 20000")
_LOG_N = 12  # a try of a passphrase costs 20 ms, not 0.3 s: these homes live a minute, and the file lies beside them
_RATE = Rate.of_btc_price(65_000, 0, "fixed")
_SELLERS = {
    "Alice": '[[sell]]\nkind = 5001\nprice_msat = 21000\nprovider = "summarizer"\n'
    '[[sell]]\nkind = 5970\nprice_msat = 13000\nprovider = "pow"\n',
    "Bob": '[[sell]]\nkind = 5001\nprice_msat = 34000\nprovider = "summarizer"\n'
    '[[sell]]\nkind = 5970\nprice_msat = 8000\nprovider = "pow"\n',
}


@dataclass(slots=True)
class _Asked:
    """One job as the person asked for it."""

    title: str
    text: str
    reserved: MicroUsd
    bought: bool
    reply: str = ""
    spent_sat: int = 0


@dataclass(slots=True)
class _Stage:
    """Everything that runs, and what it is called."""

    folder: Path
    http: aiohttp.ClientSession
    screen: Screen
    children: list[Child] = field(default_factory=list)
    homes: dict[str, Path] = field(default_factory=dict)
    rings: dict[str, Keyring] = field(default_factory=dict)
    nodes: dict[str, Child] = field(default_factory=dict)
    relay: str = ""
    mint: str = ""


def _asked() -> list[_Asked]:
    article = (Path(__file__).parent / "article.txt").read_text(encoding="utf-8")
    return [
        _Asked("Summarise an article (5001)", f"summarize: {article}", MicroUsd(50_000), bought=True),
        _Asked("Proof of work, 16 bits (5970)", "pow: 16 a note from the demo", MicroUsd(50_000), bought=True),
        _Asked(
            "Summarise for almost nothing (5001)", f"summarize [max $0.004]: {article}", MicroUsd(4_000), bought=False
        ),
    ]


def run(json_mode: bool, crash: bool, keep: bool, picture: Path | None = None) -> int:
    """Run the whole demo; 0 if every fact holds, else 1.

    With `json_mode` the facts are one JSON object on stdout. `picture` is where the screen is kept as SVG.
    """
    screen = Screen(quiet=json_mode, record=picture is not None)
    report = asyncio.run(_run(screen, crash=crash, keep=keep))
    if picture is not None:
        # without the fonts that it would fetch from elsewhere
        drawing = re.sub(r"@font-face \{.*?\}", "", screen.console.export_svg(title="vendo demo"), flags=re.DOTALL)
        picture.write_text(drawing, encoding="utf-8")
    if json_mode:
        print(json.dumps(report))  # noqa: T201 - data goes to stdout
    return 0 if report["ok"] else 1


async def _run(screen: Screen, *, crash: bool, keep: bool) -> dict[str, Any]:
    begun = time.monotonic()
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    folder = Path(tempfile.mkdtemp(prefix="vendo-demo-"))
    try:
        async with AsyncExitStack() as stack:
            timeout = aiohttp.ClientTimeout(total=20)
            http = await stack.enter_async_context(aiohttp.ClientSession(timeout=timeout))
            stage = _Stage(folder, http, screen, await stack.enter_async_context(family()))
            await _open_market(stage)
            wire = await stack.enter_async_context(watching(http, stage.relay))
            person = Person(wire)
            screen.name(person.key.pubkey, "the person")
            await _open_nodes(stage, wire, person)
            report = await _story(stage, wire, person, crash=crash)
    finally:
        if keep:
            screen.say(f"Logs and homes are kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)
    report["seconds"] = round(time.monotonic() - begun, 2)
    screen.report(report)
    return report


async def _all(stage: _Stage, *starts: Coroutine[Any, Any, Child]) -> list[Child]:
    """Start several at once; if one fails the others are ended too."""

    async def one(start: Coroutine[Any, Any, Child]) -> Child:
        child = await start
        stage.children.append(child)
        return child

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(start)) for start in starts]
    return [task.result() for task in tasks]


async def _open_market(stage: _Stage) -> None:
    with stage.screen.waiting("Starting a relay and a mint…"):
        relay, mint = await _all(stage, start_relay(stage.folder), start_mint(stage.folder, stage.http))
    stage.relay, stage.mint = str(relay.said["url"]), str(mint.said["url"])
    stage.screen.say(f"A relay runs as process {relay.process.pid}, at {stage.relay}")
    stage.screen.say(f"A nutshell mint runs as process {mint.process.pid}, at {stage.mint}")


def _make_home(stage: _Stage, name: str, owner: str, services: str) -> None:
    path = stage.folder / name.lower()
    secret = stage.folder / f"{name.lower()}.passphrase"
    home.create(
        path, relays=[stage.relay], mints=[stage.mint], port=0, owner=owner, name=name,
        passphrase=make_file(secret), passphrase_file=secret, log_n=_LOG_N,
    )  # fmt: skip
    file = path / "config.toml"
    text = file.read_text(encoding="utf-8")
    assert _PATIENT[0] in text, "the template of config.toml has this line"
    file.write_text(text.replace(*_PATIENT) + services, encoding="utf-8")
    stage.homes[name], stage.rings[name] = path, home.open_keyring(path)
    stage.screen.name(stage.rings[name].node.pubkey, name)


async def _open_nodes(stage: _Stage, wire: Wire, person: Person) -> None:
    for name, services in _SELLERS.items():
        _make_home(stage, name, Key.generate().npub, services)
    _make_home(stage, "Buyer", person.key.npub, "")
    stage.screen.name(stage.rings["Buyer"].agent("agent").pubkey, "the agent")
    wire.listeners.append(stage.screen.event)
    with stage.screen.waiting("Starting two sellers and a buyer…"):
        started = await _all(stage, *(start_node(name, stage.folder, path) for name, path in stage.homes.items()))
    stage.nodes = dict(zip(stage.homes, started, strict=True))
    for name, child in stage.nodes.items():
        stage.screen.say(f"{name} runs as process {child.process.pid}")
    for name in _SELLERS:
        await _announced(wire, stage.rings[name].node.pubkey)
    await _fund(stage)


async def _announced(wire: Wire, seller: PubKey) -> None:
    await wire.until(lambda event: event.kind == HANDLER and event.pubkey == seller, _REPLY)


async def _fund(stage: _Stage) -> None:
    path, child = stage.homes["Buyer"], stage.nodes["Buyer"]
    headers = {"Authorization": f"Bearer {home.read_token(path)}", "Idempotency-Key": "demo-deposit"}
    base = f"{child.said['control']}/agents/node/wallet"
    async with stage.http.post(f"{base}/deposit", json={"sat": _DEPOSIT_SAT}, headers=headers) as answer:
        answer.raise_for_status()
    with stage.screen.waiting("Funding the buyer…"):
        while await _balance(stage, "Buyer") < _DEPOSIT_SAT:
            await asyncio.sleep(0.1)
    stage.screen.say(f"The buyer deposits {_DEPOSIT_SAT} sat at the mint")


async def _balance(stage: _Stage, name: str) -> int:
    return await checker.restored_balance(stage.rings[name], stage.mint, stage.http)


async def _balances(stage: _Stage) -> dict[str, int]:
    amounts = await asyncio.gather(*(_balance(stage, name) for name in stage.homes))
    return dict(zip(stage.homes, amounts, strict=True))


async def _story(stage: _Stage, wire: Wire, person: Person, *, crash: bool) -> dict[str, Any]:
    before = await _balances(stage)
    agent = stage.rings["Buyer"].agent("agent").pubkey
    asked = _asked()
    killed: dict[str, Any] = {}
    held = before["Buyer"]
    for number, job in enumerate(asked):
        stage.screen.quote("The person sends a DM", job.text, 72)
        await person.say(agent, job.text)
        if crash and number == 0:
            killed = await _crash(stage, wire)
        with stage.screen.waiting("Waiting for the agent's reply…"):
            job.reply = (await person.hear(agent, _REPLY)).content
        stage.screen.quote("The agent replies", job.reply)
        if job.bought:
            await _receipt(wire, number)
        now = await _balance(stage, "Buyer")
        job.spent_sat, held = held - now, now
    after = await _balances(stage)
    return await _report(stage, wire, asked, before, after, killed)


async def _receipt(wire: Wire, number: int) -> None:
    """Wait until the seller of this job has claimed its ecash."""
    await wire.until(lambda _: sum(_is_receipt(event) for event in wire.events.values()) > number, _REPLY)


def _is_receipt(event: Event) -> bool:
    return event.kind == JOB_FEEDBACK and bool(event.all("receipt"))


async def _crash(stage: _Stage, wire: Wire) -> dict[str, Any]:
    """SIGKILL the buyer as soon as the relay has stored the event that carries the token, then start it again."""
    sellers = {stage.rings[name].node.pubkey for name in _SELLERS}
    event = await wire.until(lambda one: one.kind == GIFT_WRAP and one.value("p") in sellers, _REPLY)
    victim = stage.nodes["Buyer"]
    await victim.kill()
    stage.screen.say(f"[bold red]SIGKILL[/] to the buyer, process {victim.process.pid}: the payment is on the relay")
    stage.children.remove(victim)
    again = await start_node("Buyer", stage.folder, stage.homes["Buyer"])
    stage.children.append(again)
    stage.nodes["Buyer"] = again
    stage.screen.say(f"The buyer runs again, as process {again.process.pid}")
    return {"killed_pid": victim.process.pid, "restarted_pid": again.process.pid, "token_event": event.id}


async def _report(
    stage: _Stage,
    wire: Wire,
    asked: list[_Asked],
    before: dict[str, int],
    after: dict[str, int],
    killed: dict[str, Any],
) -> dict[str, Any]:
    # in the order in which they came; those that have expired by now (NIP-40) are on the relay no more
    events = list((wire.events | {event.id: event for event in await stored(stage.http, stage.relay)}).values())
    sellers = [checker.Party(name, stage.rings[name].node) for name in _SELLERS]
    mint = checker.Mint(stage.http, stage.mint)
    jobs = await checker.read_jobs(events, stage.rings["Buyer"].node.pubkey, sellers, mint)
    receipts = [event for event in events if _is_receipt(event)]
    facts: dict[str, bool] = {"three_jobs_were_asked_for": len(jobs) == len(asked)}
    rows = []
    earned: dict[str, int] = dict.fromkeys(_SELLERS, 0)
    for number, (job, one) in enumerate(zip(jobs, asked, strict=False), 1):
        for name, good in checker.judge(job, sellers, receipts).items():
            facts[f"job_{number}_{name}"] = good
        facts[f"job_{number}_bought_or_not_as_expected"] = bool(job.payments) == one.bought
        facts[f"job_{number}_cost_within_the_reservation"] = _RATE.cost(Msat.of_sat(one.spent_sat)) <= one.reserved
        facts[f"job_{number}_answered_by_dm"] = bool(one.reply) and (one.bought or "built-in" in one.reply)
        for payment in job.payments[:1]:
            earned[payment.seller] += payment.sat - job.claim_fee_sat
        rows.append(_row(job, one, {seller.pubkey: seller.name for seller in sellers}))
    fees = sum(row["fees_msat"] for row in rows) // 1000
    facts["sellers_hold_what_they_earned"] = all(after[name] - before[name] == earned[name] for name in _SELLERS)
    facts["conserved"] = sum(before.values()) == sum(after.values()) + fees
    if killed:
        facts["killed_and_started_again"] = killed["killed_pid"] != killed["restarted_pid"]
    return {
        "ok": all(facts.values()),
        "facts": facts,
        "jobs": rows,
        "wallets": [{"name": name, "before_sat": before[name], "after_sat": after[name]} for name in before],
        "crash": killed,
        "processes": {child.name: child.process.pid for child in stage.children} | {"demo": os.getpid()},
    }


def _row(job: checker.JobFacts, asked: _Asked, names: dict[str, str]) -> dict[str, Any]:
    reserved = _RATE.cover(asked.reserved)
    spent = Msat.of_sat(asked.spent_sat)
    payment = job.payments[0] if job.payments else None
    quote = next((one for one in job.quotes if payment and one.quote_id == payment.quote_id), None)
    paid = Msat.of_sat(payment.sat - job.claim_fee_sat) if payment else Msat(0)
    why = "the cheapest admissible quote" if quote else "no seller took it: the built-in provider, free"
    amounts = {"reserved": reserved, "paid": paid, "fees": spent - paid, "released": reserved - spent}
    row: dict[str, Any] = {
        "title": asked.title,
        "request": job.request.id,
        "bid_msat": job.bid.value,
        "quotes": [
            {"seller": names[one.seller], "amount_msat": one.amount.value}
            for one in sorted(job.quotes, key=lambda one: one.amount.value)
        ],
        "chosen": names[quote.seller] if quote else "built-in",
        "why": why,
        "reply": asked.reply,
    }
    for name, amount in amounts.items():
        row[f"{name}_msat"] = amount.value
        row[f"{name}_uusd"] = _RATE.cost(amount).value if amount.value >= 0 else -1
    row["reserved_uusd"] = asked.reserved.value
    row["released_uusd"] = asked.reserved.value - _RATE.cost(spent).value
    return row
