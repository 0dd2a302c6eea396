"""The health check of a container: whether the node of VENDO_HOME answers GET /healthz. Standard library alone."""

import http.client
import json
import os
import sys
from pathlib import Path
from urllib.parse import urlsplit

_PATIENCE_S = 4.0


def main() -> int:
    """0 if it answers, 1 if not; why not stands on standard error."""
    try:
        said = json.loads((Path(os.environ["VENDO_HOME"]) / "control.json").read_text(encoding="utf-8"))
        address = urlsplit(said["url"])
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_PATIENCE_S)
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, ValueError, KeyError, http.client.HTTPException) as error:
        sys.stderr.write(f"the node does not answer: {type(error).__name__}: {error}\n")
        return 1
    return 0 if status == http.client.OK else 1


if __name__ == "__main__":
    sys.exit(main())
