"""What a request says, read into a Struct that lets nothing pass unseen: JSON (RFC 8259), a form, a query, an event."""

import json
import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from infra.events.cloudevents import STRUCTURED, CloudEvent
from infra.http.problems import FieldError, Problem, invalid
from infra.http.shapes import MOST_ERRORS, Repeated
from infra.http.wrong_fields import forbidden_fields, wrong_fields

Body = TypeVar("Body", bound=msgspec.Struct)
Event = TypeVar("Event", bound=CloudEvent)

# Possessive, or 60,000 blanks would be tried in every division.
UTF8 = r'\s*+(;\s*+charset\s*+=\s*+"?utf-8"?\s*+)?;?\s*+'
JSON_TYPE = f"(?i)application/json{UTF8}"
FORM_TYPE = f"(?i)application/x-www-form-urlencoded{UTF8}"
STRUCTURED_TYPE = f"(?i){re.escape(STRUCTURED)}{UTF8}"
SCHEDULE_TIME = "x-cloudscheduler-scheduletime"
FORM_FIELDS = 100
NUL_IN_JSON = r"\u0000"


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
        text = body.decode()
        # first as JSON alone: msgspec stops at the first wrong field, whatever follows it
        value, repeated = parse_json(text)
        decoded = msgspec.json.decode(body, type=struct)
    except (msgspec.ValidationError, TypeError) as error:  # TypeError: a set of what can't be in one
        raise wrong_shape(error, value, struct) from None
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise Problem(400, "the body is not valid JSON") from None
    if repeated or NUL_IN_JSON in text:
        refuse_forbidden(value)
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
    attributes = [(name[3:], unquote(value)) for name, value in request.headers.items() if name.startswith("ce-")]
    if SCHEDULE_TIME in request.headers and "ce-id" not in request.headers:  # differs between runs of a Scheduler's job
        attributes.append(("id", request.headers[SCHEDULE_TIME]))
    return convert_pairs(attributes, struct, strict=True)


def convert_pairs(pairs: list[tuple[str, str]], struct: type[Body], strict: bool = False) -> Body:
    """Raises a 422 Problem. What `struct` neither knows nor forbids may come as often as it likes."""
    if not struct.__struct_config__.forbid_unknown_fields:
        pairs = [pair for pair in pairs if pair[0] in struct.__struct_encode_fields__]
    value = Repeated(pairs)
    try:
        converted = msgspec.convert(value, struct, strict=strict)
    except msgspec.ValidationError as error:
        raise wrong_shape(error, value, struct, strict) from None
    refuse_forbidden(value)
    return converted


def json_response(content: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def parse_json(text: str) -> tuple[Any, bool]:
    """The value, and whether one of its objects gives a name more than once. Raises ValueError, RecursionError."""
    repeated: list[dict[str, Any]] = []

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs) and len(repeated) <= MOST_ERRORS:
            value = Repeated(pairs)
            repeated.append(value)
        return value

    return json.loads(text, object_pairs_hook=make_object, parse_constant=refuse_constant), bool(repeated)


def refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def refuse_forbidden(value: Any) -> None:
    if errors := forbidden_fields(value):
        raise invalid_fields(errors)


def wrong_shape(error: Exception, value: Any, struct: type[msgspec.Struct], strict: bool = True) -> Problem:
    return invalid_fields(wrong_fields(value, struct, strict) or [first_wrong(error)])


def first_wrong(error: Exception) -> FieldError:
    """Where msgspec stopped, for what wrong_fields doesn't foresee; the words of a Struct's own __post_init__."""
    path = re.search(r" - at `(?:key` in `)?\$([^`]*)`$", str(error))
    cause = error.__cause__
    return FieldError(path[1].strip(".") if path else "", str(cause) if isinstance(cause, ValueError) else "is wrong")


def invalid_fields(errors: list[FieldError]) -> Problem:
    """A 422 that names all of them, and the first in its detail."""
    first, *others = errors
    detail = f"{first.field}: {first.message}" if first.field else first.message
    if others:
        detail += f", and {'at least ' if len(errors) > MOST_ERRORS else ''}{len(others)} more"
    return Problem(422, detail, errors=errors[:MOST_ERRORS])
