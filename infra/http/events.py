"""CloudEvents over HTTP: https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md"""

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar
from urllib.parse import unquote

from starlette.requests import Request

from infra.events.cloudevents import STRUCTURED, CloudEvent
from infra.http.bodies import convert_pairs, read_body
from infra.http.fields import OWS, QUOTED, unquoted
from infra.http.problems import Problem

Event = TypeVar("Event", bound=CloudEvent)

PREFIX = "ce-"
ENCODED = r"(?:[ !\x23\x24\x26-\x7e]|%[0-9A-Fa-f]{2})*+"
FORBIDDEN = r"[\x00-\x1f\x7f-\x9f\ufdd0-\ufdef]"  # and the last two code points of each plane (spec.md, 3.1)
SCHEDULE_TIME = "x-cloudscheduler-scheduletime"


async def read_event(request: Request, struct: type[Event]) -> Event:
    """The event in the body (structured mode) or in the headers (binary mode); then its data isn't read.

    Raises a Problem: 415 for a batch, 400 for headers that the binding forbids, 422 without an attribute that is
    required, and as `read_body`.
    """
    if request.headers.get("content-type", "").strip(OWS).lower().startswith("application/cloudevents"):
        return await read_body(request, struct, STRUCTURED)
    await request.body()
    try:
        attributes = list(binary_attributes(request.headers.items()))
    except ValueError as error:
        raise Problem(400, str(error)) from None
    if SCHEDULE_TIME in request.headers and "ce-id" not in request.headers:  # differs between runs of a Scheduler's job
        attributes.append(("id", request.headers[SCHEDULE_TIME]))
    return convert_pairs(attributes, struct, strict=True)


def binary_attributes(headers: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """What the headers, with names in lower case, say of an event. Raises ValueError for what the binding forbids."""
    for name, value in headers:
        if name.startswith(PREFIX):
            attribute = name.removeprefix(PREFIX)
            if not re.fullmatch("[a-z0-9]+", attribute) or attribute == "datacontenttype":
                raise ValueError(f"{name} is no event attribute's header")
            if attribute != "data":  # which is the body
                yield attribute, decoded(name, value.strip(OWS))
        elif name == "content-type" and value:
            yield "datacontenttype", value


def decoded(name: str, value: str) -> str:
    """An attribute's value (3.1.3.2): older senders quote it, all of them percent-encode."""
    text = unquoted(value)
    encoded = ENCODED.replace("\\x23", '"#') if re.fullmatch(QUOTED, value) else ENCODED
    if not re.fullmatch(encoded, text):
        raise ValueError(f"{name} is not percent-encoded")
    try:
        text = unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ValueError(f"{name} is not UTF-8") from None
    if re.search(FORBIDDEN, text) or any(ord(character) & 0xFFFE == 0xFFFE for character in text):
        raise ValueError(f"{name} has a character that no attribute may have")
    return text
