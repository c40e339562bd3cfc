"""What a request says, read into a Struct that lets nothing pass unseen: JSON (RFC 8259), a form, a query, an event."""

import json
import re
from typing import Any, TypeVar, get_args, get_type_hints
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from infra.events.cloudevents import STRUCTURED, CloudEvent
from infra.http.problems import Problem, invalid

Body = TypeVar("Body", bound=msgspec.Struct)
Event = TypeVar("Event", bound=CloudEvent)

# Possessive, or 60,000 blanks would be tried in every division.
UTF8 = r'\s*+(;\s*+charset\s*+=\s*+"?utf-8"?\s*+)?;?\s*+'
JSON_TYPE = f"(?i)application/json{UTF8}"
FORM_TYPE = f"(?i)application/x-www-form-urlencoded{UTF8}"
STRUCTURED_TYPE = f"(?i){re.escape(STRUCTURED)}{UTF8}"
SCHEDULE_TIME = "x-cloudscheduler-scheduletime"
FORM_FIELDS = 100
UNKNOWN_FIELD = r"(?s)Object contains unknown field `(.*)`"
MISSING_FIELD = r"(?s)Object missing required field `(.*)`"


async def read_body(request: Request, struct: type[Body], media_type: str = JSON_TYPE) -> Body:
    """The request's JSON as a `struct`.

    Raises a Problem: 415 when it isn't JSON in UTF-8 by its Content-Type, 400 when it can't be parsed, 422 when its
    shape is wrong, a field is unknown or given twice, or a text holds NUL.
    """
    content_type = request.headers.get("content-type")
    body = await request.body()
    if content_type is None and not body:
        raise invalid("", "a JSON object is needed in the body")
    if not re.fullmatch(media_type, content_type or ""):
        raise Problem(415, "the body must be JSON in UTF-8, and its Content-Type say so")
    try:
        # first as JSON alone: msgspec stops at the first wrong field, whatever follows it
        json.loads(body.decode(), object_pairs_hook=refuse_duplicates, parse_constant=refuse_constant)
        decoded = msgspec.json.decode(body, type=struct)
    except msgspec.ValidationError as error:
        raise wrong_shape(str(error), struct) from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Problem(400, "the body is not valid JSON") from None
    refuse_nul(decoded)
    return decoded


async def read_form(request: Request, struct: type[Body]) -> Body:
    """The request's form as a `struct`. Raises a Problem as `read_body` does."""
    content_type = request.headers.get("content-type")
    body = await request.body()
    if (content_type or body) and not re.fullmatch(FORM_TYPE, content_type or ""):
        raise Problem(415, "the body must be application/x-www-form-urlencoded in UTF-8")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS)
    except ValueError:
        raise Problem(400, "the body is not a valid form") from None
    return convert_pairs(pairs, struct)


async def read_query(request: Request, struct: type[Body]) -> Body:
    """The request's query parameters as a `struct`. Raises a 422 Problem."""
    return convert_pairs(request.query_params.multi_items(), struct)


async def read_event(request: Request, struct: type[Event]) -> Event:
    """The event in the body (structured mode) or in the headers (binary mode); then its data isn't read.

    Raises a Problem: 415 for a batch, 422 without an attribute that is required, and as `read_body`.
    """
    if request.headers.get("content-type", "").lower().startswith("application/cloudevents"):
        return await read_body(request, struct, STRUCTURED_TYPE)
    await request.body()
    attributes = {name[3:]: unquote(value) for name, value in request.headers.items() if name.startswith("ce-")}
    if SCHEDULE_TIME in request.headers:  # all that differs between two runs of a Cloud Scheduler job
        attributes.setdefault("id", request.headers[SCHEDULE_TIME])
    try:
        return msgspec.convert(attributes, struct)
    except msgspec.ValidationError as error:
        raise wrong_shape(str(error), struct) from None


def convert_pairs(pairs: list[tuple[str, str]], struct: type[Body]) -> Body:
    refuse_duplicates([pair for pair in pairs if pair[0] in struct.__struct_fields__])
    try:
        converted = msgspec.convert(dict(pairs), struct, strict=False)
    except msgspec.ValidationError as error:
        raise wrong_shape(str(error), struct) from None
    refuse_nul(converted)
    return converted


def json_response(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def wrong_shape(message: str, struct: type[msgspec.Struct]) -> Problem:
    """msgspec's words, taken apart: the field and what is wrong with it, or what the field's description asks for."""
    message, _, path = message.partition(" - at `$")
    path = path.strip(".`")
    for pattern, text in ((UNKNOWN_FIELD, "unknown field"), (MISSING_FIELD, "required")):
        if named := re.fullmatch(pattern, message):
            return invalid(".".join(filter(None, (path, named[1]))), text)
    wanted = re.match(r"Expected `(str` (matching|of length)|int`)", message) and description(struct, path)
    return invalid(path, f"expected {wanted}" if wanted else message[0].lower() + message[1:])


def description(struct: type[msgspec.Struct], field: str) -> str | None:
    hint = get_type_hints(struct, include_extras=True).get(field)
    parts = (hint, *get_args(hint))  # of Annotated, or of a union with it
    return next((meta.description for part in parts for meta in getattr(part, "__metadata__", ())), None)


def refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for name, _ in pairs:
        if name in seen:
            raise invalid(name, "given more than once")
        seen.add(name)


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def refuse_nul(body: msgspec.Struct) -> None:
    for field in body.__struct_fields__:
        value = getattr(body, field)
        if isinstance(value, str) and "\0" in value:
            raise invalid(field, "must not contain NUL")
