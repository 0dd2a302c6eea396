"""Slow and pure functions are computed once over many runs: each run derives the same keys from the same words."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any

from _pytest.monkeypatch import MonkeyPatch
from mnemonic import Mnemonic

from wallet import invoice
from wallet.cashu import curve, derive

_SIZE = 20_000
_PURE: tuple[tuple[Any, str, Any], ...] = (
    (derive, "blind", lru_cache(_SIZE)(derive.blind)),
    (curve, "hashed", lru_cache(_SIZE)(curve.hashed)),
    (invoice, "read_invoice", lru_cache(_SIZE)(invoice.read_invoice)),
    (Mnemonic, "to_seed", staticmethod(lru_cache(_SIZE)(Mnemonic.to_seed))),
)


@contextmanager
def remembering() -> Iterator[None]:
    """While this is open."""
    with ExitStack() as stack:
        patch = stack.enter_context(MonkeyPatch.context())
        for owner, name, function in _PURE:
            patch.setattr(owner, name, function)
        yield
