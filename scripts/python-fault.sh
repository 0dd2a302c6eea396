#!/bin/sh
# Prints one line that says why the interpreter named in $1 cannot be used, or nothing if it can.

python=${1:-python3}
if ! command -v "$python" >/dev/null 2>&1; then
    echo "$python is not there: vendo needs Python 3.11 or 3.12 (on Debian: apt install python3 python3-venv)"
elif ! "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1; then
    echo "$python is not Python 3.11 or 3.12, which vendo needs: name one with make PYTHON=/path/to/python3.11"
elif ! "$python" -c 'import ensurepip, venv' >/dev/null 2>&1; then
    echo "$python cannot make virtual environments: install python3-venv (on Debian: apt install python3-venv)"
fi
