#!/bin/sh
# Makes sure that the servers the tests start are installed, and leaves no system service behind.
# More of them are named as PROGRAM=PACKAGE.
set -eu
PATH="$PATH:/usr/sbin:/sbin"

missing=""
for server in mariadbd=mariadb-server mariadb-install-db=mariadb-server redis-server=redis-server openssl=openssl \
              chromium=chromium chromedriver=chromium-driver "$@"; do
    command -v "${server%=*}" >/dev/null || missing="$missing ${server#*=}"
done
[ -n "$missing" ] || exit 0

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if ! command -v apt-get >/dev/null || ! $as_root true 2>/dev/null; then
    echo "The tests need more than is installed here; Debian's packages:$missing" >&2
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
# shellcheck disable=SC2086 # a list
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
