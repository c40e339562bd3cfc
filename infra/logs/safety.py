"""Makes a log line safe: nothing secret in it, always valid JSON, never longer than collectors take."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import quote

import msgspec

MAX_LINE = 16_382  # bytes before the newline: Docker's json-file splits a line that reaches 16 KiB
SURELY_SHORT = MAX_LINE // 4  # characters, of 4 bytes at most
CUTS = (12_000, 8_000, 5_000, 3_000, 2_000, 1_000, 500)  # characters of a string, until the line is short enough
HIDDEN = "***"
CUT = "..."
UNREADABLE = "__could_not_encode__"  # what python-json-logger writes, too

# Patterns are compiled when they are first needed, which for most of them is never.
# Dots are optional: half a JWT says enough, and a search for them through "eyJeyJeyJ..." would take for ever.
TOKENS = r"(?a)eyJ[\w-]{8,}(?:\.[\w-]*){0,4}"
OPAQUE = r"[\w-]{20,}"  # what follows the prefix of a token of one of these kinds
# The words left alone are those of plain prose.
CREDENTIALS = (
    r"(?i)(bearer|basic)((?:[\s+]|%20)+)"
    r"(?!(?:tokens?|auth|authentication|authorization|credentials|scheme)(?:[\s.,;:)\"'\\]|$))[^\0-\x20\"'\\,;<>]+"
)
# JSON may hold these as they are, but a terminal or an editor obeys them: DEL, C1, line ends, writing directions.
CONTROLS = "[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]"
TRACEBACKS = ("Traceback (most recent", "  + Exception Group Traceback")


def to_json(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    if "\x7f" in text or not text.isascii():
        text = re.sub(CONTROLS, lambda match: f"\\u{ord(match[0]):04x}", text)
    return text


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    name = name.lower()
    return "password" in name or "secret" in name or name.endswith(("token", "authorization", "cookie", "passwd"))


class Redactor:
    """Hides the secrets that it knows, and whatever looks like a token or credentials."""

    def __init__(self, secrets: Iterable[str], token_prefixes: Sequence[str] = ()) -> None:
        # A shorter value would blot out half of what is logged.
        known = {spelling for secret in secrets if len(secret) >= 8 for spelling in spellings(secret)}
        self.secrets = sorted(known, key=len, reverse=True)
        self.encoded = [*token_prefixes, *(to_json(secret)[1:-1] for secret in self.secrets)]
        self.searched = [*token_prefixes, *self.secrets]
        self.tokens = "|".join([TOKENS, *(re.escape(prefix) + OPAQUE for prefix in token_prefixes)])

    def line(self, line: str, outside: str | None = None) -> str:
        """Looks through the encoded line, so that no field of any kind is left out; hides value by value.

        Where nothing else can hold a secret, only through `outside`, which is not encoded.
        """
        suspect = suspicious(line, self.encoded) if outside is None else suspicious(outside, self.searched)
        return to_json(self._value(msgspec.json.decode(line))) if suspect else line

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self._text(name): self._value(item) for name, item in value.items()}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        for secret in self.secrets:
            text = text.replace(secret, HIDDEN)
        return re.sub(CREDENTIALS, rf"\1\2{HIDDEN}", re.sub(self.tokens, HIDDEN, text))


def suspicious(text: str, secrets: Iterable[str]) -> bool:
    lower = text.lower()
    if "eyJ" in text or "bearer" in lower or "basic" in lower:
        return True
    for secret in secrets:  # any() would take twice as long  # noqa: SIM110
        if secret in text:
            return True
    return False


def spellings(secret: str) -> set[str]:
    """How a value looks after what may happen to it on its way into a line: a URL, repr, JSON inside a string."""
    quoted = (repr(secret), json.dumps(secret), json.dumps(secret, ensure_ascii=False))
    return {secret, quote(secret, safe=""), *(text[1:-1] for text in quoted)}


def as_text(value: object) -> str:
    try:
        return utf8(str(value))
    except Exception:  # noqa: BLE001 - __str__ may raise anything
        return UNREADABLE


def utf8(text: str) -> str:
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def plain(value: Any, name: str = "") -> Any:  # noqa: PLR0911 - one return a kind of value
    """A value as JSON knows it; what is named like a secret is hidden, at any depth."""
    if is_secret_name(name) and not (value is None or isinstance(value, bool)):
        return HIDDEN
    if type(value) is str:
        return utf8(value)
    if value is None or isinstance(value, bool | float):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else as_text(value)  # what collectors can store
    if not isinstance(value, type):
        names = getattr(value, "__struct_fields__", getattr(value, "__dataclass_fields__", ()))
        value = {field: getattr(value, field) for field in names} or value
    if isinstance(value, Mapping):
        return {(key := text_of(item)): plain(inner, key) for item, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        if len(value) == 2 and isinstance(value, list | tuple) and isinstance(value[0], bytes):
            return [text_of(value[0]), plain(value[1], text_of(value[0]))]  # a header, as ASGI writes it
        return [plain(item) for item in value]
    return text_of(value)


def text_of(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else as_text(value)


def fit(line: str) -> str:
    """The line; when it is too long with its strings cut, and then with as many of its fields as there is room for."""
    if len(line) <= SURELY_SHORT or size(line) <= MAX_LINE:
        return line
    whole = msgspec.json.decode(line)
    for limit in CUTS:
        fields = shorten(whole, limit)
        line = to_json(fields | {"truncated": True})
        if size(line) <= MAX_LINE:
            return line
    kept, room = {}, MAX_LINE - len('{"truncated":true}')
    for name, value in fields.items():
        length = size(to_json({name: value}))
        if length <= room:
            kept[name] = value
            room -= length
    return to_json(kept | {"truncated": True})


def size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def shorten(value: Any, limit: int) -> Any:
    """Every string's beginning; of a traceback both ends, for it says at its end what went wrong."""
    if isinstance(value, dict):
        return {name: shorten(item, limit) for name, item in value.items()}
    if isinstance(value, list):
        return [shorten(item, limit) for item in value]
    if not isinstance(value, str) or len(value) <= limit:
        return value
    if value.startswith(TRACEBACKS):
        return f"{value[: limit // 4]}{CUT}{value[limit // 4 - limit :]}"
    return value[:limit] + CUT
