"""The only import of the cashu library. It gives us its elliptic-curve and keyset-id code, and nothing else of it.

`cashu.core.settings` (which `cashu.core.base` pulls in) reads a `.env` of the working directory over the process's
environment, sets `sys.tracebacklimit` to 0 and logs secrets through loguru. The modules named here do not import it;
should a later version do so, the guard keeps the host process as it was, and a test notices.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _guarded() -> Iterator[None]:
    limit = getattr(sys, "tracebacklimit", None)
    environment = dict(os.environ)
    try:
        yield
    finally:
        if limit is None:
            vars(sys).pop("tracebacklimit", None)
        else:
            sys.tracebacklimit = limit
        for name in set(os.environ) - set(environment):
            del os.environ[name]
        os.environ.update(environment)
        loguru = sys.modules.get("loguru")
        if loguru is not None:
            loguru.logger.disable("cashu")


with _guarded():
    from cashu.core.crypto.b_dhke import alice_verify_dleq, hash_to_curve, step2_bob, step3_alice
    from cashu.core.crypto.keys import derive_keyset_id, derive_keyset_id_v2
    from cashu.core.crypto.secp import PrivateKey, PublicKey

__all__ = [
    "PrivateKey",
    "PublicKey",
    "alice_verify_dleq",
    "derive_keyset_id",
    "derive_keyset_id_v2",
    "hash_to_curve",
    "step2_bob",
    "step3_alice",
]
