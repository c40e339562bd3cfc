#!/bin/sh
# Makes sure that the servers the tests start are installed, and leaves no system service behind.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

missing=""
for program in mariadbd mariadb-install-db redis-server openssl; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if ! command -v apt-get >/dev/null || ! $as_root true 2>/dev/null; then
    echo "The tests need$missing: install MariaDB, Redis and OpenSSL (Debian: mariadb-server redis-server openssl)." >&2
    exit 1
fi

# Exit status 101 of policy-rc.d tells a package not to start what it installs.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap '$as_root rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
    $as_root chmod +x "$policy"
fi
echo "installing$missing" >&2
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive \
    apt-get install -qq -y --no-install-recommends mariadb-server redis-server openssl >/dev/null
