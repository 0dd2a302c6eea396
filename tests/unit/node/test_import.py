"""What a node does not load as long as nothing needs it: starting is most of what short commands and tests wait for."""

import subprocess
import sys


def test_a_node_on_a_file_does_without_the_driver_of_postgresql() -> None:
    code = "import sys, node.launch; print([name for name in ('asyncpg', 'alembic') if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
