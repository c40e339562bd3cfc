#!/bin/sh
# Fetches the Swagger UI that /docs shows (Apache License 2.0). To have another version, change the next two lines.
VERSION=5.35.0
SHA512=534eaba4cb56f55dd73c638179a993512af4674f63317e0826e00da44fc465b021c341bc0a0c2bcd4e18997927fe1d3008336c5dd19aad334d1c2dec53cc9551
set -eu
cd "$(dirname "$0")"

archive=$(mktemp)
trap 'rm -f "$archive"' EXIT
curl -fsS -o "$archive" "https://registry.npmjs.org/swagger-ui-dist/-/swagger-ui-dist-$VERSION.tgz"
echo "$SHA512  $archive" | sha512sum --check --quiet
tar -xzf "$archive" --strip-components=1 \
    package/swagger-ui-bundle.js package/swagger-ui.css package/LICENSE package/NOTICE package/swagger-ui-bundle.js.LICENSE.txt
gzip -9nf swagger-ui-bundle.js swagger-ui.css
