"""`/metrics`: numbers in Prometheus' text format (version 0.0.4). Pure.

A relay's numbers are the fields of `RelayHealth`, each under its own name; what they mean is said there and nowhere
else. Only our own relays are named: how many names a stranger can make up must not decide how long the page is.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

from relays.delay import Delay
from relays.health import RelayHealth

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Fields that can go down; every other number only grows while the process lives.
_LEVELS = frozenset(
    {
        "up",
        "since",
        "failures",
        "in_flight",
        "requests",
        "queued",
        "sockets",
        "authenticated",
        "refused_keys",
        "stopped",
    }
)
_QUANTILES = (0.5, 0.99)


def relay_metrics(states: Iterable[tuple[RelayHealth, bool]]) -> str:
    """The numbers of each relay of ours, and how many others are connected."""
    listed = list(states)
    ours = [state for state, is_ours in listed if is_ours]
    parts = [_field(ours, one.name) for one in fields(RelayHealth)]
    others = sum(1 for state, is_ours in listed if state.up and not is_ours)
    help_text = "connections to relays that somebody else named"
    parts.append(family("vendo_relay_others_up", "gauge", help_text, [({}, others)]))
    return "".join(parts)


def upkeep_metrics(counters: Mapping[str, Any]) -> str:
    """How full the disk is, and what was deleted for its age."""
    free = [({"place": place}, number) for place, number in counters["free_bytes"].items()]
    removed = [({"table": table}, number) for table, number in sorted(counters["removed"].items())]
    return "".join(
        [
            family("vendo_disk_free_bytes", "gauge", "room on the file systems that the node writes to", free),
            family("vendo_disk_low", "gauge", "whether new work is refused for want of room", [({}, counters["low"])]),
            _counter("vendo_disk_refused", "writes that the disk refused", [({}, counters["refused_writes"])]),
            _counter("vendo_retention_rows", "rows that were deleted for their age", removed),
        ]
    )


def sell_metrics(facts: Mapping[str, Any]) -> str:
    """What is sold and waits, and what was not answered, by reason: the reasons are words of ours."""
    dropped = [({"reason": reason}, number) for reason, number in facts["dropped"].items()]
    waiting, running = (
        [({"kind": str(one["kind"])}, one[name]) for one in facts["kinds"]] for name in ("waiting", "running")
    )
    return "".join(
        [
            family(
                "vendo_sell_open", "gauge", "sales that have not ended, with quotes that stand", [({}, facts["open"])]
            ),
            family("vendo_sell_capacity", "gauge", "sales that may be open at once", [({}, facts["capacity"])]),
            family("vendo_sell_waiting", "gauge", "jobs that wait for a worker", waiting),
            family("vendo_sell_running", "gauge", "jobs at work", running),
            _counter("vendo_sell_dropped", "requests that were not served, by reason", dropped),
        ]
    )


def family(name: str, kind: str, help_text: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    """One metric with all its samples; `kind` is counter or gauge."""
    lines = [f"# HELP {name} {_escaped(help_text)}"] if help_text else []
    lines.append(f"# TYPE {name} {kind}")
    for labels, number in samples:
        shown = ",".join(f'{label}="{_escaped(value, quote=True)}"' for label, value in labels.items())
        lines.append(f"{name}{{{shown}}} {_text(number)}" if shown else f"{name} {_text(number)}")
    return "\n".join(lines) + "\n"


def _field(states: Sequence[RelayHealth], name: str) -> str:
    """One field of every relay; nothing for a text."""
    metric, meaning = f"vendo_relay_{name}", _meanings().get(name, "")
    values = [(state.url, getattr(state, name)) for state in states]
    if any(isinstance(value, Delay) for _, value in values):
        quantiles = [
            ({"relay": url, "quantile": str(share)}, seconds)
            for url, value in values
            for share in _QUANTILES
            if (seconds := value.quantile(share)) is not None
        ]
        return family(f"{metric}_seconds", "gauge", meaning, quantiles)
    samples = [({"relay": url}, number) for url, value in values if (number := _number(value)) is not None]
    if not samples:
        return ""
    return family(metric, "gauge", meaning, samples) if name in _LEVELS else _counter(metric, meaning, samples)


def _counter(metric: str, meaning: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> str:
    return family(f"{metric}_total", "counter", meaning, samples)


def _number(value: object) -> float | None:
    """A field as a number: of a collection, how many it holds; None for a text."""
    if isinstance(value, bool | int | float):
        return value
    return len(value) if isinstance(value, dict) else None


@cache
def _meanings() -> dict[str, str]:
    """What `RelayHealth` says of its fields."""
    found = re.findall(r"^\s{8}(\w+): (.*(?:\n\s{9,}.*)*)", RelayHealth.__doc__ or "", re.MULTILINE)
    return {name: " ".join(text.split()).rstrip(".") for name, text in found}


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quote else text


def _text(number: float) -> str:
    return str(int(number)) if isinstance(number, bool | int) else f"{number:.6g}"
