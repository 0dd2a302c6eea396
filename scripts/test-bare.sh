#!/bin/sh
# Proves what the README promises: on a Debian with git, make, Python 3.11, venv and pip and nothing else, a normal
# user with an empty home gets the demo from a clone by `make demo`. Root; takes a few minutes; leaves nothing behind.
#
#   SOURCE=/path/to/clone     the repository to clone (default: this one; only what is committed counts)
#   MIRROR=http://…/debian    the Debian mirror (default: debootstrap's own)
#   TARGET=install            runs another target instead of the demo
#   CACHE=/path/to/folder     keeps the bare system there for the next run (default: made anew, then removed)
set -eu

SUITE=bookworm
PACKAGES=git,make,python3,python3-venv,python3-pip,ca-certificates
BUNDLE=/etc/ssl/certs/ca-certificates.crt
SOURCE=${SOURCE:-$(cd "$(dirname "$0")/.." && pwd)}
TARGET=${TARGET:-demo}

fail() {
    echo "test-bare: $1" >&2
    exit 1
}

# A namespace of our own: every mount and every process in it is gone when this ends, however it ends.
if [ -z "${BARE_INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || fail "needs root (it makes a chroot)"
    command -v unshare >/dev/null || fail "needs unshare (on Debian: apt install util-linux)"
    command -v debootstrap >/dev/null || fail "needs debootstrap: run make test-deps first"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 130' INT TERM
    export BARE_INSIDE="$work"
    unshare --mount --propagation private --pid --fork --kill-child sh "$0" "$@"
    exit
fi

root=$BARE_INSIDE/root
if [ -n "${CACHE:-}" ] && [ -f "$CACHE/$SUITE.tar" ]; then
    mkdir -p "$root"
    tar -C "$root" -xf "$CACHE/$SUITE.tar"
else
    echo "test-bare: making a bare $SUITE (a minute or two)"
    # shellcheck disable=SC2086  # no mirror given means no word at all
    debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$root" ${MIRROR:-} >"$BARE_INSIDE/debootstrap.log" 2>&1 || {
        tail -n 20 "$BARE_INSIDE/debootstrap.log" >&2
        fail "debootstrap failed"
    }
    [ -z "${CACHE:-}" ] || { mkdir -p "$CACHE" && tar -C "$root" -cf "$CACHE/$SUITE.tar" .; }
fi

mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"

# What belongs to the network and not to the machine: names, trusted authorities, proxies, package indexes.
cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
[ ! -f "$BUNDLE" ] || cp -L "$BUNDLE" "$root$BUNDLE"
set -- HOME=/home/user USER=user LOGNAME=user LANG=C.UTF-8 PATH=/usr/local/bin:/usr/bin:/bin TERM="${TERM:-dumb}"
for name in SSL_CERT_FILE PIP_CERT PIP_INDEX_URL PIP_EXTRA_INDEX_URL PIP_TRUSTED_HOST PIP_DEFAULT_TIMEOUT \
    UV_INDEX UV_DEFAULT_INDEX UV_INDEX_URL UV_NATIVE_TLS http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY; do
    value=$(printenv "$name" || true)
    [ -n "$value" ] || continue
    case $name in
        SSL_CERT_FILE | PIP_CERT) [ -f "$value" ] && mkdir -p "$root$(dirname "$value")" && cp -L "$value" "$root$value" ;;
    esac
    set -- "$@" "$name=$value"
done

chroot "$root" useradd --create-home --shell /bin/sh user
if chroot "$root" sh -c 'command -v uv docker node gcc cc'; then
    fail "the bare system is not bare"
fi
git clone --quiet "file://$SOURCE" "$root/home/user/vendo"
chroot "$root" chown -R user:user /home/user

as_user() {
    chroot --userspec=user:user --groups=user "$root" env -i "$@"
}

echo "test-bare: make $TARGET as a normal user"
as_user "$@" sh -c 'cd ~/vendo && make "$0"' "$TARGET" </dev/null
[ "$TARGET" = demo ] || exit 0

echo "test-bare: vendo demo --json, judged by its own exit code and by its words"
as_user "$@" sh -c 'cd ~/vendo && .venv/bin/vendo demo --json' </dev/null >"$BARE_INSIDE/facts.json"
as_user "$@" sh -c 'cd ~/vendo && test -z "$(git status --porcelain)"' || fail "the demo left files in the checkout"
chroot "$root" python3 -c '
import json, sys
facts = json.load(sys.stdin)
assert facts["ok"] is True, facts
' <"$BARE_INSIDE/facts.json"
left=$(chroot "$root" sh -c 'awk "/^Uid:/ && \$2 == $(id -u user) { print FILENAME }" /proc/[0-9]*/status 2>/dev/null || true')
[ -z "$left" ] || fail "the demo left processes behind: $left"
echo "test-bare: passed"
