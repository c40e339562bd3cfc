"""What a request says, read into a Struct that lets nothing pass unseen: JSON (RFC 8259), a form, a query."""

import json
import re
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from infra.http.fields import media_type, members
from infra.http.problems import FieldError, Problem, invalid
from infra.http.shapes import MOST_ERRORS, Repeated
from infra.http.wrong_fields import forbidden_fields, wrong_fields

Body = TypeVar("Body", bound=msgspec.Struct)

JSON_TYPE = "application/json"
FORM_TYPE = "application/x-www-form-urlencoded"
FORM_FIELDS = 100
NUL_IN_JSON = r"\u0000"
SURROGATE_IN_JSON = r"\\u[dD][89a-fA-F]"


async def read_body(request: Request, struct: type[Body], type_name: str = JSON_TYPE) -> Body:
    """The request's JSON as a `struct`.

    Raises a Problem: 415 when it isn't JSON in UTF-8 by its Content-Type, 400 when it can't be parsed or holds what
    isn't Unicode, 422 when its shape is wrong, a field is unknown or given twice, or a text holds NUL.
    """
    content_type = request.headers.getlist("content-type")
    body = await request.body()
    if not content_type and not body:
        raise invalid("", "a JSON object is needed in the body")
    check_type(request, content_type, type_name, "the body must be JSON in UTF-8, and its Content-Type say so")
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
    content_type = request.headers.getlist("content-type")
    body = await request.body()
    if content_type or body:
        check_type(request, content_type, FORM_TYPE, "the body must be application/x-www-form-urlencoded in UTF-8")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=FORM_FIELDS)
    except ValueError:
        raise Problem(400, "the body is not a valid form") from None
    return convert_pairs(pairs, struct)


async def read_query(request: Request, struct: type[Body]) -> Body:
    """The request's query parameters as a `struct`. Raises a 422 Problem."""
    return convert_pairs(request.query_params.multi_items(), struct)


def check_type(request: Request, content_type: list[str], name: str, otherwise: str) -> None:
    """Raises a 415 Problem unless the body is of that type, in UTF-8, in no content coding (RFC 9110, 8.3 and 8.4)."""
    found = media_type(content_type)
    if (
        not found
        or found.name != name
        or any(key == "charset" and value.lower() != "utf-8" for key, value in found.parameters)
    ):
        raise Problem(415, otherwise)
    if {coding.lower() for coding in members(request.headers.getlist("content-encoding"))} - {"identity"}:
        raise Problem(415, "the body must be in no content coding", headers={"Accept-Encoding": "identity"})


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

    value = json.loads(text, object_pairs_hook=make_object, parse_constant=refuse_constant)
    if re.search(SURROGATE_IN_JSON, text):
        json.dumps(value, ensure_ascii=False).encode()  # raises UnicodeEncodeError for one that is alone
    return value, bool(repeated)


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
