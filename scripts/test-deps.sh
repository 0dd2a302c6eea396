#!/bin/sh
# Installs what some tests need besides Python: PostgreSQL, Node.js with foreign Nostr clients, foreign relays and machines from
# PyPI, npm and the Go module proxy, NIP-44's official vectors, Lightning nodes, FUSE, curl, and debootstrap for test-bare. What is not
# Debian's is pinned by hash in tests/interop/. Debian, root if a package is missing. Run again it finds everything there and is
# done at once.
set -eu
cd "$(dirname "$0")/.."

go_wanted=1.24.4 # what tests/interop/go/go.mod asks for at least, from the Go module proxy where Debian's is older
vectors_digest=b75ae3778f35afb84add34e90b700d4fda9b588c9e6c8039403c62871186736c

fail() {
    echo "test-deps: $1" >&2
    exit 1
}

newest() { # newest A B: true if version A is not older than B
    [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

go_version() {
    go version 2>/dev/null | sed -n 's/^go version go\([0-9.]*\).*/\1/p'
}

wanted=""
command -v node >/dev/null || wanted="$wanted nodejs libnode-dev"
command -v npm >/dev/null || wanted="$wanted npm"
command -v g++ >/dev/null || wanted="$wanted g++"
command -v make >/dev/null || wanted="$wanted make"
command -v debootstrap >/dev/null || wanted="$wanted debootstrap"
command -v systemd-analyze >/dev/null || wanted="$wanted systemd" # it checks units without running any
command -v curl >/dev/null || wanted="$wanted curl"
command -v fusermount3 >/dev/null || wanted="$wanted fuse3"
[ -n "$(go_version)" ] || [ -x .tool/go/bin/go ] || wanted="$wanted golang-go"
if [ -n "$wanted" ]; then
    command -v apt-get >/dev/null || fail "install these yourself, this is not Debian:$wanted"
    [ "$(id -u)" = 0 ] || fail "needs root to install:$wanted"
    export DEBIAN_FRONTEND=noninteractive
    echo "test-deps: installing$wanted"
    apt-get update -qq
    # shellcheck disable=SC2086  # one word per package
    apt-get install -qq -y --no-install-recommends $wanted >/dev/null
fi
# Where the kernel has FUSE and nobody has made its device, as in a container, root makes it
if [ ! -e /dev/fuse ] && grep -qw fuse /proc/filesystems && [ "$(id -u)" = 0 ]; then
    mknod /dev/fuse c 10 229
fi
sh scripts/test-postgres.sh

# A foreign relay's database is compiled as its authors do, for the bench; a run that only tests does not wait so long.
quick=""
[ "${CI:-}" != true ] || quick=-O1

# khatru, and the vectors that go-nostr ships. Go from 1.21 on fetches a newer one by itself if it needs it; for an
# older one it is fetched here: as a module of the proxy, checked against the checksum database like any other.
export GOTOOLCHAIN=auto
khatru() (
    set -e
    source=tests/interop/go
    found=$(go_version)
    if ! newest "${found:-0}" 1.21 && [ ! -x .tool/go/bin/go ]; then
        echo "test-deps: fetching Go $go_wanted"
        module="golang.org/toolchain@v0.0.1-go$go_wanted.$(go env GOOS)-$(go env GOARCH)"
        folder=$(go mod download -json "$module" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
        [ -d "$folder" ] || fail "the Go module proxy does not serve $module"
        rm -rf .tool/go.new
        cp -r "$folder" .tool/go.new
        chmod -R u+w .tool/go.new
        chmod -R u+x .tool/go.new/bin .tool/go.new/pkg/tool
        mv .tool/go.new .tool/go
    fi
    [ ! -x .tool/go/bin/go ] || PATH=$PWD/.tool/go/bin:$PATH
    echo "test-deps: building khatru with $(go version)"
    [ -z "$quick" ] || export CGO_CFLAGS=$quick
    (cd $source && CGO_ENABLED=1 go build -trimpath -buildvcs=false -o ../../../.tool/khatru .)
    vectors=$(cd $source && go list -m -f '{{.Dir}}' github.com/nbd-wtf/go-nostr)/nip44/nip44_test.go
    echo "$vectors_digest  $vectors" | sha256sum --check --status || fail "$vectors is not what was reviewed"
    (cd $source && go run -buildvcs=false ./vector "$vectors") >.tool/nip44.vectors.json
    touch .tool/khatru.stamp
)
building="" # it takes a core for a minute or two, while the rest goes on
if [ ! -f .tool/khatru.stamp ] || [ -n "$(find tests/interop/go -newer .tool/khatru.stamp -type f)" ]; then
    khatru &
    building=$!
fi

# Lightning: Debian 12's Electrum, unpacked and not installed, on an interpreter and libraries of its own. APT checks what it
# fetches. An older or newer Electrum than 4.3 speaks otherwise to whoever asks it, and 4.3 cannot be run by Python 3.12.
electrum_wanted=4.3.
lightning() (
    set -e
    packages="electrum python3-electrum libsecp256k1-1"
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || python=python3.11
    command -v "$python" >/dev/null || fail "Electrum $electrum_wanted* needs Python 3.11"
    echo "test-deps: unpacking Electrum into .tool/lightning"
    rm -rf .tool/lightning
    mkdir -p .tool/lightning/deb
    "$python" -m venv --without-pip .tool/lightning/venv
    .tool/bin/uv pip install --quiet --python .tool/lightning/venv --compile-bytecode --require-hashes --requirement "$1"
    cd .tool/lightning/deb
    # shellcheck disable=SC2086  # one word per package
    fetch() { apt-get download -qq -o APT::Sandbox::User=root $packages; }
    fetch 2>/dev/null || { [ "$(id -u)" != 0 ] || apt-get update -qq; fetch; }
    version=$(dpkg-deb --field python3-electrum_*.deb Version)
    [ "${version#"$electrum_wanted"}" != "$version" ] || fail "Debian has Electrum $version here, and not $electrum_wanted*"
    for file in *.deb; do dpkg-deb --extract "$file" ../root; done
    cd ../../..
    modules=.tool/lightning/root/usr/lib/python3/dist-packages
    cp .tool/lightning/root/usr/lib/*/libsecp256k1.so.1 $modules/electrum/ # where it looks first
    for packages in .tool/lightning/venv/lib/python3.*/site-packages; do
        echo ../../../../root/usr/lib/python3/dist-packages >"$packages/electrum.pth"
    done
    .tool/lightning/venv/bin/python -m compileall -q $modules/electrum >/dev/null
    .tool/lightning/venv/bin/python -c 'from electrum import ecc_fast; assert ecc_fast._libsecp256k1'
    rm -r .tool/lightning/deb
    touch .tool/lightning/.stamp
)
list=tests/interop/python/electrum.txt
unpacking=""
if [ ! -f .tool/lightning/.stamp ] || [ "$list" -nt .tool/lightning/.stamp ]; then
    lightning "$list" &
    unpacking=$!
fi

# Foreign clients, and @nostr-relay/core, whose better-sqlite3 is compiled here: its own installer would fetch a binary
# from outside the registry.
peer=tests/interop/node
stamp=$peer/node_modules/.stamp
compiling="" # likewise
if [ ! -f "$stamp" ] || [ "$peer/package-lock.json" -nt "$stamp" ]; then
    echo "test-deps: installing foreign clients into $peer"
    (cd "$peer" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error)
    headers=$(dirname "$(dirname "$(readlink -f "$(command -v node)")")")
    [ -f "$headers/include/node/node.h" ] || fail "the C++ headers of $(command -v node) are missing in $headers/include/node"
    (cd "$peer" && CFLAGS="$quick" CXXFLAGS="$quick" npm_config_nodedir="$headers" \
        npm rebuild better-sqlite3 --build-from-source --loglevel=error >/dev/null) &
    compiling=$!
fi

# Foreign relays, and nostr-dvm, from PyPI, each in an environment of their own.
from_pypi() { # from_pypi LIST FOLDER
    if [ -f "$2/.stamp" ] && [ ! "$1" -nt "$2/.stamp" ]; then return; fi
    echo "test-deps: installing what $1 lists into $2"
    rm -rf "$2"
    "${PYTHON:-python3}" -m venv --without-pip "$2"
    .tool/bin/uv pip install --quiet --python "$2" --require-hashes --requirement "$1"
    touch "$2/.stamp"
}
from_pypi tests/interop/python/relays.txt .tool/relays
from_pypi tests/interop/python/nostr_dvm.txt .tool/nostr_dvm

if [ -n "$unpacking" ]; then
    wait "$unpacking" || fail "Lightning's nodes cannot be had here"
fi
if [ -n "$compiling" ]; then
    wait "$compiling" || fail "better-sqlite3 does not compile here"
    touch "$peer/node_modules/.stamp"
fi
if [ -n "$building" ]; then
    wait "$building" || fail "khatru cannot be built here"
fi
echo "test-deps: node $(node --version), $(find $peer/node_modules -maxdepth 1 -type d | wc -l) packages of npm, relays and nostr-dvm from PyPI, khatru, Electrum, PostgreSQL"
