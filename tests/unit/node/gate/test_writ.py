"""Writs: globs, ceilings, windows."""

import pytest

from core.effect import EffectClass
from node.gate.writ import Grant, Writ, matches


@pytest.mark.parametrize(
    ("glob", "text", "covered"),
    [
        ("/compute/**", "/compute/new", True),
        ("/compute/**", "/compute/jobs/1/status", True),
        ("/compute/**", "/compute", False),
        ("/compute/**", "/computer/new", False),
        ("/compute/*", "/compute/jobs/1", False),
        ("/compute/*/status", "/compute/1/status", True),
        ("agent:*", "agent:a", True),
        ("agent:*", "operator", False),
        ("/a.c", "/abc", False),
        ("/**", "/x\ny", True),
    ],
)
def test_globs(glob: str, text: str, covered: bool) -> None:
    assert matches(glob, text) is covered


def test_a_grant_ends_at_its_ceiling_and_its_window() -> None:
    writ = Writ("w", (Grant("agent:*", "write", "/x/**", EffectClass.WRITE),), not_before=10, expires=20)

    def refused(effect: EffectClass = EffectClass.WRITE, now: int = 15, verb: str = "write") -> bool:
        return writ.refusal("agent:a", verb, "/x/y", effect, now) is not None

    assert not refused()
    assert not refused(now=10)
    assert refused(now=9)
    assert refused(now=20)
    assert refused(EffectClass.EXTERNAL)
    assert refused(verb="read")


def test_the_furthest_of_several_grants_counts() -> None:
    grants = tuple(Grant("*", "write", "/**", ceiling) for ceiling in (EffectClass.READ, EffectClass.EXTERNAL))
    assert Writ("w", grants).refusal("node", "write", "/x", EffectClass.EXTERNAL, 0) is None
