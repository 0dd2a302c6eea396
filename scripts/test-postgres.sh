#!/bin/sh
# Installs PostgreSQL's server for tests, from Debian's packages, if it is missing. Tests start servers of their own in
# temporary folders (tests/postgres_part.py). Debian's package would make and start one more: here it is told not to.
set -eu

if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || command -v initdb >/dev/null; then
    exit 0
fi

fail() {
    echo "test-postgres: $1" >&2
    exit 1
}

command -v apt-get >/dev/null || fail "install PostgreSQL's server yourself, this is not Debian"
[ "$(id -u)" = 0 ] || fail "needs root to install PostgreSQL's server"
export DEBIAN_FRONTEND=noninteractive
echo "test-postgres: installing PostgreSQL"
apt-get update -qq
none=/etc/postgresql-common/createcluster.d/vendo-test.conf
trap 'rm -f "$none"' EXIT
mkdir -p "$(dirname "$none")"
echo "create_main_cluster = false" >"$none"
apt-get install -qq -y --no-install-recommends postgresql-common postgresql >/dev/null
