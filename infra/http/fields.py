"""Field values (RFC 9110, 5.5 and 5.6), read alike wherever a header is read: white space, lists, quoted strings."""

import re
from collections.abc import Iterable
from typing import NamedTuple

OWS = " \t"
TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]++"  # noqa: S105 - the RFC's word
QUOTED = r'"(?:[^"\\]|\\.)*+"'
# Possessive, or many blanks would be tried in every division.
MEMBER = rf"(?:{QUOTED}|[^,])++"
PARAMETER = rf"[ \t]*+;[ \t]*+(?:({TOKEN})=({TOKEN}|{QUOTED}))?"
MEDIA_TYPE = rf"({TOKEN}/{TOKEN})((?:{PARAMETER})*+)[ \t]*+"


class MediaType(NamedTuple):
    """Names and type in lower case; a parameter may come more than once."""

    name: str
    parameters: list[tuple[str, str]]


def members(lines: Iterable[str]) -> list[str]:
    """The members of a list (5.6.1), which may stand on several lines. A comma within quotes separates nothing, and an
    empty member is none."""
    parts = (part.strip(OWS) for part in re.findall(MEMBER, ",".join(lines)))
    return [part for part in parts if part]


def media_type(lines: Iterable[str]) -> MediaType | None:
    """What Content-Type says (8.3.1), None when it isn't well formed: so is one that comes twice."""
    found = re.fullmatch(MEDIA_TYPE, ",".join(lines).strip(OWS))
    if not found:
        return None
    pairs = re.findall(PARAMETER, found[2])
    return MediaType(found[1].lower(), [(name.lower(), unquoted(value)) for name, value in pairs if name])


def unquoted(value: str) -> str:
    """The text of a quoted string (5.6.4); anything else as it is."""
    return re.sub(r"\\(.)", r"\1", value[1:-1]) if re.fullmatch(QUOTED, value) else value


def repeated_names(headers: Iterable[tuple[bytes, bytes]]) -> set[bytes]:
    """Of the fields that come more than once: one that isn't a list has then no value that everybody reads alike."""
    seen: set[bytes] = set()
    return {name for name, _ in headers if name in seen or seen.add(name)}  # type: ignore[func-returns-value]
