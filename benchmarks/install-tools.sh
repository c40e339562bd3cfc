#!/bin/sh
# Makes sure that the servers, the load generator and valgrind are installed.
set -eu
cd "$(dirname "$0")/.."
tests/install-servers.sh

missing=""
for program in wrk valgrind; do
    command -v "$program" >/dev/null || missing="$missing $program"
done
[ -n "$missing" ] || exit 0

as_root=""
[ "$(id -u)" = 0 ] || as_root="sudo -n"
if ! command -v apt-get >/dev/null || ! $as_root true 2>/dev/null; then
    echo "The benchmarks need$missing: install them." >&2
    exit 1
fi
echo "installing$missing" >&2
$as_root apt-get update -qq
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null
