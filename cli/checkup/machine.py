"""Python, vendo, and the libraries that it needs, as they are installed."""

import re
import ssl
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

from cli.checkup.finding import Check, fail, ok

_NEED = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^]]*\])?\s*(.*)")
_BOUND = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9][0-9.]*)")
_INSTALL = "Run: make install (in the checkout), or install vendo anew with requirements/run.txt"


def python() -> Check:
    """The interpreter."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    detail = f"Python {found} at {sys.executable}"
    if (3, 11) <= sys.version_info[:2] < (3, 13):
        return ok("python", detail)
    return fail("python", f"{detail}; vendo runs on 3.11 and 3.12.", "Run: make install PYTHON=/path/to/python3.11")


def libraries() -> list[Check]:
    """What vendo asks of its libraries (its own metadata), and what is there."""
    try:
        asked, own = requires("vendo") or [], version("vendo")
    except PackageNotFoundError:
        return [fail("versions", "vendo runs from a folder and is not installed.", _INSTALL)]
    wrong = [one for text in asked for one in unmet(text)]
    if wrong:
        return [fail("versions", f"vendo {own} finds {'; '.join(wrong)}.", _INSTALL)]
    met = sum("extra" not in text.partition(";")[2] for text in asked)
    return [ok("versions", f"vendo {own}, {met} requirements met, {ssl.OPENSSL_VERSION}.")]


def unmet(requirement: str) -> Iterator[str]:
    """What is wrong with one requirement as metadata writes it, `name[extra]>=1,<2; marker`; extras are passed over."""
    text, _, marker = requirement.partition(";")
    found = _NEED.match(text.strip())
    if found is None or "extra" in marker:
        return
    name, bounds = found.groups()
    try:
        there = version(name)
    except PackageNotFoundError:
        yield f"no {name}"
        return
    for sign, bound in _BOUND.findall(bounds):
        if not _holds(_numbers(there), sign, _numbers(bound)):
            yield f"{name} {there} instead of {bounds.strip()}"
            return


def _numbers(text: str) -> tuple[int, ...]:
    """The release part, `2.11.0rc1` as (2, 11); zeros at the end say nothing."""
    found = re.match(r"[0-9]+(\.[0-9]+)*", text)
    parts = [int(part) for part in found.group().split(".")] if found else []
    while parts and parts[-1] == 0:
        parts.pop()
    return tuple(parts)


def _holds(found: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    return {
        ">=": found >= bound, "<=": found <= bound, "==": found == bound,
        "!=": found != bound, "<": found < bound, ">": found > bound,
    }[sign]  # fmt: skip
