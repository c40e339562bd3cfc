"""Kinds of variables: what their values look like, and what a value becomes."""

import json
import re
from collections.abc import Callable
from ipaddress import IPv6Address, ip_network
from pathlib import Path
from typing import Any, NamedTuple

from infra.base.certificates import certificates

HOST_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,253}"
IPV6 = r"[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"
# As browsers send it: in lower case.
ORIGIN = rf"\*|https?://({HOST_NAME.replace('A-Z', '')}|\[{IPV6}\])(:[0-9]{{1,5}})?"
URL = rf"https?://({HOST_NAME}|\[{IPV6}\])(:[0-9]{{1,5}})?(/[!\"$-~]*)?"
UTF8 = r"[^\0\ud800-\udfff]*"  # bytes that aren't UTF-8 reach os.environ as lone surrogates, which nothing can encode
TRUE, FALSE = "true t yes y on 1", "false f no n off 0"


def without_credentials(text: str) -> str:
    """Where a host belongs, some put a URL, with a password or a token in it."""
    return re.sub(r"\S+", lambda word: word_without_credentials(word[0]), text)


def word_without_credentials(word: str) -> str:
    # Looked for at one place of each word: a pattern that tries them all takes minutes for a long value.
    scheme, slashes, rest = word.partition("//")
    if not slashes:
        return re.sub(r"\A[^/:]*:.*@", "***@", word)
    return scheme + slashes + re.sub(r"[?#].*", "?***", re.sub(r"\A([^/:]*:.*|[^/]*)@", "***@", rest))


class Kind(NamedTuple):
    """Values are those that match the pattern and that `make` accepts; of type `secret` none is ever shown."""

    type: str
    expected: str
    pattern: str
    make: Callable[[str], Any] = str
    show: Callable[[str], str] = without_credentials  # what may be shown of a value, a right or a wrong one


class RateLimit(NamedTuple):
    attempts: int
    seconds: int


def parse(text: str, kind: Kind) -> Any:
    """Raises ValueError or OSError."""
    if not re.fullmatch(kind.pattern, text):
        raise ValueError("not well formed")
    return kind.make(text)


def number(type_: Callable[[str], Any], low: float, high: int, what: str, pattern: str = "[0-9]{1,10}") -> Kind:
    def make(text: str) -> Any:
        if not low <= type_(text) <= high:
            raise ValueError
        return type_(text)

    return Kind(type_.__name__, f"{what} from {low} to {high}", pattern, make)


def integer(low: int, high: int = 2**31 - 1) -> Kind:
    return number(int, low, high, "an integer")


def seconds(low: float) -> Kind:
    # The longest is what a signed 32-bit count of milliseconds holds, as poll() and MySQL's max_execution_time take it.
    return number(float, low, 2_147_483, "a number of seconds", r"[0-9]{1,10}(\.[0-9]{1,10})?")


def one_of(words: str, fold: Callable[[str], str] = str) -> Kind:
    pattern = words.replace(" ", "|")
    return Kind("str", "one of " + words.replace(" ", ", "), pattern if fold is str else f"(?i:{pattern})", fold)


def several(item: str, expected: str, make: Callable[[str], str] = str) -> Kind:
    def each(text: str) -> tuple[str, ...]:
        return tuple(map(make, items(text)))

    return Kind("list", f"{expected}, comma-separated", f"(({item})( *, *({item}))*)?", each)


def items(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",")) if text else ()


def origin(text: str) -> str:
    """As a browser sends it (https://url.spec.whatwg.org/#origin): without the port that its scheme has anyway."""
    scheme, _, host = text.partition("://")
    name, _, port = host.rpartition(":") if re.search(r":[0-9]+$", host) else (host, "", "")
    if port and not 1 <= int(port) <= 65535:
        raise ValueError("no port")
    if name.startswith("["):
        name = f"[{IPv6Address(name[1:-1])}]"
    default = {"http": 80, "https": 443}.get(scheme)
    return text if text == "*" else f"{scheme}://{name}" + (f":{int(port)}" if port and int(port) != default else "")


def is_true(text: str) -> bool:
    return text.lower() in TRUE.split()


def proxies(text: str) -> str:
    # Strict: uvicorn takes "10.0.0.1/8" for a name, and no client has it.
    return text if text == "*" else ",".join(part for part in items(text) if ip_network(part))


def readable(text: str) -> Path:
    with Path(text).open("rb") as file:
        file.read(1)
    return Path(text)


def key(text: str) -> str:
    """The same bytes alone and among several: blanks around it are no part of it."""
    text = text.strip()
    if len(text.encode()) < 32:
        raise ValueError("too short")
    return text


def keys(text: str) -> tuple[str, ...]:
    return tuple(key(part) for part in items(text))


def rate(text: str) -> RateLimit:
    return RateLimit(*map(int, text.split("/")))


def extensions(text: str) -> dict[str, str]:
    """CloudEvents attributes: https://github.com/knative/specs/blob/main/specs/eventing/overview.md#sink-binding"""
    try:
        found = json.loads(text).get("extensions") or {}
        if all(re.fullmatch("[a-z0-9]+", name) and isinstance(value, str) for name, value in found.items()):
            return dict(found)
    except (AttributeError, RecursionError):
        pass  # no object where there has to be one
    raise ValueError


def extensions_shown(text: str) -> str:
    """Their names: a value may be a token for whoever receives the events."""
    try:
        found = extensions(text)
    except ValueError:
        return "***"
    return json.dumps({"extensions": dict.fromkeys(found, "***")} if found else {})


# A newline at the end of a name, as `echo` puts it into Kubernetes secrets, is a mistake that nobody sees.
TEXT = Kind("str", "text without control characters", r"[^\0-\x1f\x7f-\x9f\ud800-\udfff]+")
BOOL = Kind("bool", "true or false (yes, no, on, off, 1, 0)", f"(?i:{TRUE} {FALSE})".replace(" ", "|"), is_true)
PATH = Kind("path", "a path", TEXT.pattern, Path)
FILE = Kind("path", "a readable file", TEXT.pattern, readable)
CERTIFICATES = Kind("path", "a readable PEM file of certificates", TEXT.pattern, certificates)
HOST = Kind("str", "a host name or an IP address", f"{HOST_NAME}|{IPV6}")
ORIGINS = several(ORIGIN, "origins like https://app.example.com, or *", origin)
HOSTS = several(rf"\*|(\*\.)?{HOST_NAME}|\[{IPV6}\]", "host names, *.example.com, or *")
NAMES = several("[A-Za-z0-9._-]+", "names")
PROXIES = Kind("str", "IP addresses or networks, comma-separated, or *", r"\*|[0-9A-Fa-f:./, ]+", proxies)
SINK = Kind("str", "an http:// or https:// URL without a user and password", URL)
OVERRIDES = Kind("json", 'JSON like {"extensions": {"name": "value"}}', UTF8, extensions, extensions_shown)
RATE = Kind("rate", "attempts/seconds, like 10/300", "[1-9][0-9]{0,8}/[1-9][0-9]{0,8}", rate)
SECRET = Kind("secret", "UTF-8 text", UTF8)
KEY = Kind("secret", "at least 32 bytes", UTF8, key)
KEYS = Kind("secret", "keys of at least 32 bytes, comma-separated", UTF8, keys)
TOKEN = Kind("secret", "printable ASCII without blanks", "[!-~]+")
PORT, COUNT, SECONDS = integer(1, 65535), integer(1), seconds(0.001)
