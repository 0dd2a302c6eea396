import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROGRAM = """
import os, sys
before = dict(os.environ)
import wallet.wallet, wallet.cashu.mint, wallet.cashu.fence
assert dict(os.environ) == before, "the environment was changed"
assert not hasattr(sys, "tracebacklimit"), "tracebacks were cut"
assert "cashu.core.settings" not in sys.modules, "cashu's settings were loaded"
assert not [name for name in sys.modules if name.startswith(("cashu.mint", "cashu.wallet"))]
print("clean")
"""


def test_a_hostile_env_file_in_the_working_directory_changes_nothing(tmp_path):
    lines = "DEBUG=true\nHTTP_PROXY=http://evil.test:1\nMINT_URL=http://evil.test\nTOR=true\nLOG_LEVEL=TRACE\n"
    (tmp_path / ".env").write_text(lines)
    home = tmp_path / "home" / ".cashu"
    home.mkdir(parents=True)
    (home / ".env").write_text(lines)
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={"PATH": os.defpath, "HOME": str(home.parent), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ran.stdout.strip() == "clean", ran.stderr
    assert not (home / "logs").exists()


def test_only_the_fence_imports_the_cashu_library():
    offenders = [
        path.relative_to(ROOT)
        for folder in ("core", "relays", "wallet", "dvm", "fs", "node", "cli")
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "fence.py"
        and any(line.strip().startswith(("import cashu", "from cashu")) for line in path.read_text().splitlines())
    ]
    assert offenders == []
