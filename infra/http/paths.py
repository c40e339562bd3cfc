"""The path of a request: decoded, but for what would make it another path (RFC 3986, 2.2)."""

import re
from urllib.parse import quote, unquote

NO_CODE = "%(?![0-9A-Fa-f]{2})"
KEPT = "%(?=2[Ff5])"  # of a slash or a percent sign
ALLOWED = "/%:@!$&'()*+,;="  # in a path as it is (3.3)


def decoded_path(raw_path: bytes) -> str:
    """The path with `%` in it as `%2F` and `%25` only: an encoded slash separates no segments."""
    encoded = re.sub(NO_CODE, "%25", raw_path.decode("utf-8", "replace"))
    return unquote(re.sub(KEPT, "%25", encoded)).replace("%2f", "%2F")


def decoded_segment(segment: str) -> str:
    """Of a path that `decoded_path` has made."""
    return unquote(segment)


def uri_reference(path: str) -> str:
    """Of a path that `decoded_path` has made. It never begins with `//`, which would name another host (4.2)."""
    if not path.startswith("/"):
        return path if path == "*" else "/"
    reference = quote(path, safe=ALLOWED, errors="replace")
    return f"/.{reference}" if reference.startswith("//") else reference
