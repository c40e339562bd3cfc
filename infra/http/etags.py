"""Lost updates (RFC 9110, section 13; RFC 6585, section 3): whoever makes a change says which version was read."""

import re
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta
from starlette.requests import HTTPConnection, Request

from infra.http.fields import OWS
from infra.http.parts import Reader
from infra.http.problems import Problem

ENTITY_TAG = r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*+"'
ENTITY_TAGS = rf"[ \t,]*+{ENTITY_TAG}(?:[ \t]*+,[ \t,]*+{ENTITY_TAG})*+[ \t,]*+"

ETag = Annotated[str, Meta(description="the version that is answered, for If-Match", examples=['"3"'])]


class IfMatch(NamedTuple):
    """The request's If-Match, without which it is refused: a handler's parameter of this type."""

    value: str  # of all its lines

    def check(self, etag: str) -> None:
        """Raises a 412 Problem unless `etag` is one of those; a weak one never is (section 8.8.3.2)."""
        if self.value != "*" and etag not in entity_tags(self.value):
            raise precondition_failed()


class IfMatchHeader(msgspec.Struct, rename={"if_match": "If-Match"}):
    if_match: Annotated[str, Meta(description="the ETag of the version to change, or *", examples=['"3"'])]


def entity_tags(text: str) -> list[str]:
    """Those of a list, none when it isn't well formed."""
    return re.findall(ENTITY_TAG, text) if re.fullmatch(ENTITY_TAGS, text) else []


def is_known(request: HTTPConnection[Any], etag: str) -> bool:
    """Whether the client has this version already: its If-None-Match says so, or `*` (section 13.1.2)."""
    text = ",".join(request.headers.getlist("if-none-match")).strip(OWS)
    return text == "*" or etag.removeprefix("W/") in [tag.removeprefix("W/") for tag in entity_tags(text)]


def etag_of(version: int | str) -> str:
    return f'"{version}"'


def precondition_failed() -> Problem:
    return Problem(412, "it has been changed since: read it again")


async def read_if_match(request: Request, _: Any) -> IfMatch:
    values = request.headers.getlist("if-match")
    if not values:
        raise Problem(428, "If-Match is needed, with the ETag of the version to change")
    return IfMatch(",".join(values).strip(OWS))


IF_MATCH = Reader(
    read_if_match,
    problems={412: "it has been changed since", 428: "If-Match is missing"},
    headers=IfMatchHeader,
)
