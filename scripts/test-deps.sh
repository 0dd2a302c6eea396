#!/bin/sh
# Installs what some tests need besides Python: Node.js with the foreign Nostr client, and debootstrap for test-bare.
# Debian, root if a package is missing. Run again it finds everything there and is done at once.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "test-deps: $1" >&2
    exit 1
}

wanted=""
command -v node >/dev/null || wanted="$wanted nodejs"
command -v npm >/dev/null || wanted="$wanted npm"
command -v debootstrap >/dev/null || wanted="$wanted debootstrap"
if [ -n "$wanted" ]; then
    command -v apt-get >/dev/null || fail "install these yourself, this is not Debian:$wanted"
    [ "$(id -u)" = 0 ] || fail "needs root to install:$wanted"
    export DEBIAN_FRONTEND=noninteractive
    echo "test-deps: installing$wanted"
    apt-get update -qq
    # shellcheck disable=SC2086  # one word per package
    apt-get install -qq -y --no-install-recommends $wanted >/dev/null
fi

peer=tests/interop/node
stamp=$peer/node_modules/.stamp
if [ ! -f "$stamp" ] || [ "$peer/package-lock.json" -nt "$stamp" ]; then
    echo "test-deps: installing the foreign client into $peer"
    (cd "$peer" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    touch "$stamp"
fi
echo "test-deps: node $(node --version), $(ls $peer/node_modules | tr '\n' ' ')"
