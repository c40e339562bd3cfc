"""Makes a log line safe: nothing secret in it, always valid JSON, never longer than collectors take."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from datetime import date, datetime, time
from decimal import Decimal
from functools import lru_cache
from itertools import pairwise, takewhile
from typing import Any
from urllib.parse import quote, quote_plus
from uuid import UUID

import msgspec
from pythonjsonlogger.msgspec import msgspec_default

MAX_LINE = 16_382  # bytes before the newline: Docker's json-file splits a line that reaches 16 KiB
SHORTEST_CUT = 512  # bytes; when cutting every string to this isn't enough, whole fields go
HIDDEN = "***"
CUT = "..."
UNREADABLE = "__could_not_encode__"  # what python-json-logger writes, too

# Dots are optional: half a JWT says enough, and a search for them through "eyJeyJeyJ..." would take for ever.
TOKENS = re.compile(r"eyJ[\w-]{8,}(?:\.[\w-]*){0,4}|brt_[\w-]{20,}", re.ASCII)
# Up to the next white space, quote or backslash, so never out of a JSON string. The words are those of plain prose.
CREDENTIALS = re.compile(
    r"(bearer|basic)((?:[\s+]|%20|\\[tnr])+)"
    r"(?!(?:tokens?|auth|authentication|authorization|credentials|scheme)(?:[\s.,;:)\"'\\]|$))[^\s\"'\\,;<>]+",
    re.IGNORECASE,
)
# JSON may hold these as they are, but a terminal or an editor obeys them: DEL, C1, line ends, writing directions.
CONTROLS = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")
NATIVE = frozenset({datetime, date, time, Decimal, UUID})  # msgspec knows them; a subclass may do what it likes
TRACEBACKS = ("Traceback (most recent", "  + Exception Group Traceback")


def to_json(value: Any) -> str:
    text = msgspec.json.encode(value).decode()
    if "\x7f" in text or not text.isascii():
        text = CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text


@lru_cache(maxsize=1024)
def is_secret_name(name: str) -> bool:
    name = name.lower()
    return "password" in name or "secret" in name or name.endswith(("token", "authorization", "cookie", "passwd"))


def spellings(secret: str) -> set[str]:
    """How a value looks after what may happen to it on its way into a line: URLs, repr, JSON inside a string."""
    text = secret.encode("utf-8", "backslashreplace").decode()
    urls = {quote(text), quote(text, safe=""), quote_plus(text)}
    urls |= {re.sub("%..", lambda match: match[0].lower(), url) for url in urls}
    quoted = {repr(text), ascii(text), repr(text.encode())[1:], json.dumps(text), json.dumps(text, ensure_ascii=False)}
    return urls | {text, *(item[1:-1] for item in quoted)}


class Redactor:
    def __init__(self, secrets: Iterable[str]) -> None:
        # A shorter value would blot out half of what is logged.
        plain = {spelling for secret in secrets if len(secret) >= 8 for spelling in spellings(secret)}
        self._plain = sorted(plain, key=len, reverse=True)
        self._encoded = sorted({to_json(spelling)[1:-1] for spelling in plain}, key=len, reverse=True)

    def line(self, line: str) -> str:
        """Works on the encoded line, so that no field of any kind is left out."""
        clean = self._hide(line, self._encoded)
        if clean == line:
            return line
        try:
            msgspec.json.decode(clean)
        except msgspec.DecodeError:
            # A number was a secret, or the `n` of a `\n` was taken for its beginning: go value by value.
            return to_json(self._value(msgspec.json.decode(line)))
        return clean

    def text(self, text: str) -> str:
        return self._hide(text, self._plain)

    def _hide(self, text: str, secrets: Sequence[str]) -> str:
        for secret in secrets:
            if secret in text:
                text = text.replace(secret, HIDDEN)
        if "eyJ" in text or "brt_" in text:
            text = TOKENS.sub(HIDDEN, text)
        lower = text.lower()
        if "bearer" in lower or "basic" in lower:
            text = CREDENTIALS.sub(rf"\1\2{HIDDEN}", text)
        return text

    def _value(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.text(key): self._value(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._value(item) for item in value]
        text = value if isinstance(value, str) else to_json(value)
        clean = self.text(text)
        return value if clean == text else clean


def as_text(value: object) -> str:
    if isinstance(value, str):
        return str.__str__(value)
    try:
        text = msgspec_default(value)
        return text if type(text) is str else str(text)
    except Exception:  # noqa: BLE001 - __str__ and __repr__ may raise anything
        return UNREADABLE


class Values:
    """Turns the fields of one record into plain data of bounded size and depth, whatever they are."""

    def __init__(self, redactor: Redactor) -> None:
        self.redactor = redactor
        self.room = 2 * MAX_LINE  # a value takes 4 and a string its length, so none left means a line too long
        self.cut = False

    def field(self, name: str, value: Any) -> Any:
        if is_secret_name(name) and value is not None and not isinstance(value, bool):
            return HIDDEN
        if type(value) is str:
            return self.text(value)
        if type(value) is int and 0 <= value < 2**63:
            return value
        try:
            return self.plain(value, depth=0)
        except Exception:  # noqa: BLE001 - reading a mapping may raise anything
            return UNREADABLE

    def text(self, text: str, limit: int = MAX_LINE) -> str:
        """Any string as valid UTF-8. Secrets go before it is cut, so that no half of one is left."""
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode()
        if len(text) > limit and len(text := self.redactor.text(text)) > limit:
            self.cut = True
            text = shorten(text, limit)
        return text

    def name(self, key: object) -> str:
        if type(key) is str and len(key) <= 256 and key.isascii():
            return key
        return self.text(key.decode("latin-1") if isinstance(key, bytes) else as_text(key), limit=256)

    def plain(self, value: Any, depth: int) -> Any:
        self.room -= 4
        if self.room < 0 or depth > 8:
            self.cut = True
            return CUT
        if value is None or isinstance(value, bool) or type(value) in NATIVE:
            return value
        if isinstance(value, float):
            return float(value)
        if isinstance(value, int) and -(2**63) <= value < 2**64:  # what collectors can store; more becomes a string
            return int(value)
        if isinstance(value, msgspec.Struct):
            value = {name: getattr(value, name, None) for name in value.__struct_fields__}
        elif is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name, None) for field in fields(value)}
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            return self._many(value, depth + 1)
        if isinstance(value, bytes | bytearray | memoryview):
            value = bytes(value).decode("utf-8", "backslashreplace")
        text = self.text(as_text(value))
        self.room -= len(text)
        return text

    def _many(self, value: Any, depth: int) -> Any:
        if isinstance(value, Mapping):
            pairs = takewhile(lambda _: self.room >= 0, value.items())
            return dict(self._pair(key, item, depth) for key, item in pairs)
        if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str | bytes):
            return self._pair(value[0], value[1], depth)  # a header, as ASGI writes it
        return [self.plain(item, depth) for item in takewhile(lambda _: self.room >= 0, value)]

    def _pair(self, key: object, value: Any, depth: int) -> tuple[str, Any]:
        name = self.name(key)
        return name, HIDDEN if is_secret_name(name) else self.plain(value, depth)


def shorten(text: str, limit: int) -> str:
    """The beginning; of a traceback both ends, for it says at its end what went wrong."""
    if text.startswith(TRACEBACKS):
        return f"{text[: limit // 4]}{CUT}{text[len(text) - (limit - limit // 4 - len(CUT)) :]}"
    return text[: limit - len(CUT)] + CUT


def size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def fit(line: str, max_line: int = MAX_LINE) -> str:
    """The line, or when it is too long one with its longest strings cut, and as many whole fields as there is room."""
    if size(line) <= max_line:
        return line
    fields: dict[str, Any] = {**msgspec.json.decode(line), "truncated": True}
    strings = list(_long_strings(fields))
    level = _level([length for *_, length in strings], size(to_json(fields)) - max_line)
    for holder, key, length in strings:
        if length > level:
            holder[key] = _cut(holder[key], level)
    line = to_json(fields)
    return line if size(line) <= max_line else to_json(_as_many_as_fit(fields, max_line))


def _long_strings(holder: Any) -> Iterator[tuple[Any, Any, int]]:
    for key, value in list(holder.items() if isinstance(holder, dict) else enumerate(holder)):
        if isinstance(value, dict | list):
            yield from _long_strings(value)
        elif isinstance(value, str) and (length := _encoded(value)) > SHORTEST_CUT:
            yield holder, key, length


def _level(lengths: list[int], excess: int) -> int:
    """To what length the longest strings must be cut so that together they lose the excess."""
    steps = [*sorted(lengths, reverse=True), SHORTEST_CUT]
    for count, (upper, lower) in enumerate(pairwise(steps), start=1):
        if excess <= count * (upper - lower):
            return upper - -(-excess // count)
        excess -= count * (upper - lower)
    return SHORTEST_CUT


def _encoded(text: str) -> int:
    return size(to_json(text)) - 2


def _cut(text: str, length: int) -> str:
    """Cut so that its encoded form, where a character takes 1 to 6 bytes, has at most this length."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _encoded(shorten(text, middle)) <= length else (low, middle - 1)
    return shorten(text, low)


def _as_many_as_fit(fields: dict[str, Any], max_line: int) -> dict[str, Any]:
    """Whole fields, in their order, and then of one that was too large as much as goes into what is left."""
    room = max_line - len('{"truncated":true}')
    kept: dict[str, Any] = {}
    for key, value in fields.items():
        length = size(to_json({key: value})) - 1
        if length <= room:
            kept[key] = value
            room -= length
    for key, value in fields.items():
        rest = room - _encoded(key) - len('"":"",')
        if key not in kept and rest >= SHORTEST_CUT:
            kept[key] = _cut(value if isinstance(value, str) else to_json(value), rest)
            break
    return kept | {"truncated": True}
