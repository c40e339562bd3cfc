"""The head of a request as RFC 9112 has it, where the parser lets more pass: version, target, Host, transfer coding."""

import functools
import re
from collections.abc import Sequence
from ipaddress import IPv6Address

from infra.http.fields import members
from infra.http.problems import Problem

LONGEST_HOST = 253 + len(":65535")  # of a domain name
# reg-name of RFC 3986, 3.2.2, without encoded control characters; or an IP literal
HOST = rb"(?:(?:[A-Za-z0-9._~!$&'()*+,;=-]|%(?!7[Ff])[2-9A-Fa-f][0-9A-Fa-f])++|\[([0-9A-Fa-f:.]+)\])(?::([0-9]*))?"
ABSOLUTE = rb"(?i:https?)://([^/?#]*+)(/[^?#]*+)?(\?[^#]*+)?"
VERSIONS = ("1.0", "1.1")


def unknown_version(url: bytes, received: bytes) -> Problem:
    """Why a request line in `received` isn't HTTP/1.1's or HTTP/1.0's: 505 for another version of HTTP, else 400."""
    versions = (re.match(rb"([0-9]+(?:\.[0-9]+)?)\r?(?:\n|\Z)", rest) for rest in received.split(url + b" HTTP/")[1:])
    if {found[1] for found in versions if found} - {b"1.0", b"1.1"}:
        return Problem(505, "the versions of HTTP that are spoken here are 1.0 and 1.1")
    return Problem(400, "this is not valid HTTP/1.1")


def target_of(method: bytes, url: bytes) -> tuple[bytes, bytes | None]:
    """Of a target that isn't a path: its path and query, or `*`; its authority, which counts in place of Host (3.2.2).

    Raises a 400 Problem.
    """
    if url == b"*" and method == b"OPTIONS":
        return url, None
    found = re.fullmatch(ABSOLUTE, url)
    if not found or not is_host(found[1]):
        raise Problem(400, "the request's target is neither a path nor an http URL")
    authority, path, query = found.groups()
    if method == b"OPTIONS" and not path and not query:  # 3.2.4: the server as a whole
        return b"*", authority
    return (path or b"/") + (query or b""), authority


def is_host(value: bytes) -> bool:
    """Whether it names a host (RFC 9110, 7.2); what is empty doesn't."""
    return len(value) <= LONGEST_HOST and matches_host(value)


@functools.lru_cache(maxsize=64)
def matches_host(value: bytes) -> bool:
    found = re.fullmatch(HOST, value)
    if not found or int(found[2] or 0) > 65535:
        return False
    try:
        return not found[1] or bool(IPv6Address(found[1].decode()))
    except ValueError:
        return False


def check_hosts(lines: Sequence[bytes], version: str) -> None:
    """Raises a 400 Problem unless the Host lines are one that names a host; HTTP/1.0 may do without (RFC 9112, 3.2)."""
    if len(lines) > 1 or (not lines and version == "1.1") or not all(map(is_host, lines)):
        raise Problem(400, "a request has one Host header, which names a host")


def check_codings(lines: Sequence[bytes], version: str) -> None:
    """Raises a Problem unless the Transfer-Encoding lines say `chunked`, in HTTP/1.1: 501 for another coding under it,
    else 400 (RFC 9112, 6.1 and 6.3)."""
    codings = [coding.lower() for coding in members(line.decode("latin-1") for line in lines)]
    # httptools reads no chunks when a tab follows the word
    if (
        version == "1.0"
        or codings[-1:] != ["chunked"]
        or "chunked" in codings[:-1]
        or lines[-1].rstrip(b" ").endswith(b"\t")
    ):
        raise Problem(400, "the body's transfer coding is not chunked at its end")
    if len(codings) > 1:
        raise Problem(501, "the only transfer coding that is known here is chunked")
