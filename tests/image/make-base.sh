#!/bin/sh
# Writes the tar of a stand-in for python:3.13-slim, for machines that reach no image registry: Debian 13 and its
# Python 3.13, laid out as the official image is (/usr/local, pip, no .pyc files, no tests).
set -eu
tar=$1
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie "$root" >"$root.log" 2>&1 ||
    { tail -n 20 "$root.log" >&2; exit 1; }
rm "$root.log"
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"  # a private mirror's certificate may be among them

chroot "$root" sh -eu <<'INSIDE'
rmdir /usr/local/lib/python3.13/dist-packages
cp -a /usr/lib/python3.13 /usr/local/lib/
mv /usr/bin/python3.13 /usr/local/bin/
ln -s python3.13 /usr/local/bin/python3
ln -s python3 /usr/local/bin/python
cd /usr/local/lib/python3.13
rm EXTERNALLY-MANAGED
mkdir site-packages
ln -s site-packages dist-packages  # Debian's name for it
set -- /usr/share/python-wheels/pip-*.whl
python3 "$1/pip" --quiet install --no-index --root-user-action=ignore --prefix=/usr "$1"
find /usr/local -depth \( -name test -o -name tests -o -name idle_test -o -name '*.pyc' \) -exec rm -rf {} +
rm -rf /usr/lib/python3* /usr/bin/python3* /usr/share/python-wheels /usr/share/doc /usr/share/man \
    /var/cache/apt /var/lib/apt/lists/*
INSIDE
tar --directory "$root" --create --file "$tar.part" .
mv "$tar.part" "$tar"
