"""Known vulnerabilities of the locked packages, against those accepted in requirements/advisories.toml.

Exit codes: 0 nothing new; 1 an advisory that is not accepted, or an acceptance that has run out; 69 (with --strict
alone) the advisory service did not answer. Without --strict an unreachable service is said aloud and passes, because
a build must not depend on a machine that we do not run; a scheduled job should use --strict.
"""

import argparse
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ACCEPTED = ROOT / "requirements" / "advisories.toml"
LOCK = ROOT / "requirements" / "run.txt"
TIMEOUT_S = 180


@dataclass(frozen=True, slots=True)
class Acceptance:
    """An advisory that is known and lived with until a date."""

    id: str
    package: str
    reason: str
    until: date


@dataclass(frozen=True, slots=True)
class Advisory:
    """What the service says about one locked package. `names` are its id and aliases."""

    package: str
    version: str
    names: frozenset[str]
    fixed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Audit:
    """The service's answer: which packages it knew, and what it said about them."""

    known: frozenset[str]
    unknown: frozenset[str]
    advisories: tuple[Advisory, ...]


def read_accepted(path: Path) -> tuple[Acceptance, ...]:
    """The acceptances in a file; each needs an id, a package, a reason and a last day.

    Raises:
        ValueError: one of them has no reason.
    """
    rows = tomllib.loads(path.read_text(encoding="utf-8")).get("accepted", [])
    found = tuple(Acceptance(row["id"], row["package"], row["reason"], row["until"]) for row in rows)
    for one in found:
        if not one.reason.strip():
            raise ValueError(f"{one.id} is accepted without a reason")
    return found


def read_report(text: str) -> Audit:
    """pip-audit's JSON report."""
    known, unknown, advisories = set(), set(), []
    for package in json.loads(text)["dependencies"]:
        if "skip_reason" in package:
            unknown.add(package["name"])
            continue
        known.add(package["name"])
        for one in package["vulns"]:
            names = frozenset([one["id"], *one.get("aliases", ())])
            advisories.append(Advisory(package["name"], package["version"], names, tuple(one["fix_versions"])))
    return Audit(frozenset(known), frozenset(unknown), tuple(advisories))


def judge(audit: Audit, accepted: Sequence[Acceptance], today: date) -> tuple[list[str], list[str]]:
    """What is wrong, and what is worth saying."""
    faults, notes = [], []
    for one in audit.advisories:
        match = next((a for a in accepted if a.package == one.package and a.id in one.names), None)
        named = f"{one.package} {one.version}: {', '.join(sorted(one.names))}"
        if match is None:
            faults.append(f"{named} is not accepted; fixed in {', '.join(one.fixed) or 'no version'}")
        elif match.until < today:
            faults.append(f"{named} was accepted until {match.until}: look at it again")
        else:
            notes.append(f"accepted: {named}: {match.reason}")
    said = {(one.package, name) for one in audit.advisories for name in one.names}
    notes += [
        f"no longer needed: {acceptance.id} ({acceptance.package}): remove it from {ACCEPTED.name}"
        for acceptance in accepted
        if acceptance.package in audit.known and (acceptance.package, acceptance.id) not in said
    ]
    return faults, notes


def _ask() -> Audit | str:
    argv = [
        sys.executable, "-m", "pip_audit", "--requirement", str(LOCK), "--disable-pip", "--require-hashes",
        "--format", "json", "--progress-spinner", "off",
    ]  # fmt: skip
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s"
    if done.returncode not in (0, 1) or not done.stdout.strip():
        return next(reversed(done.stderr.strip().splitlines()), f"pip-audit ended with {done.returncode}")
    audit = read_report(done.stdout)
    return audit if audit.known else f"it knows none of the {len(audit.unknown)} locked packages"


def _say(lines: Iterable[str]) -> None:
    for line in lines:
        print(f"audit: {line}")


def main() -> int:
    """Ask, judge, say."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="fail if the advisory service does not answer")
    parser.add_argument("--verbose", action="store_true", help="list the accepted advisories with their reasons")
    chosen = parser.parse_args()
    accepted = read_accepted(ACCEPTED)
    today = datetime.now(UTC).date()
    answer = _ask()
    if isinstance(answer, str):
        if chosen.verbose:
            _say(f"accepted until {one.until}: {one.id} ({one.package}): {one.reason}" for one in accepted)
        _say([f"NOT AUDITED: the advisory service did not answer ({answer})."])
        return 69 if chosen.strict else 0
    faults, notes = judge(answer, accepted, today)
    _say(notes if chosen.verbose else [note for note in notes if note.startswith("no longer")])
    if answer.unknown:
        _say([f"the service does not know: {', '.join(sorted(answer.unknown))}"])
    _say(faults or [f"{len(answer.known)} packages, nothing that is not accepted"])
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
