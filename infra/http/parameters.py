"""Where each parameter of a handler comes from: the path, a header, the query, the body, or what a part reads."""

from collections.abc import Collection, Mapping
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin

import msgspec
from starlette.requests import Request

from infra.base.ids import GivenId, Id
from infra.http.bodies import convert_pairs, read_body, read_form, read_query
from infra.http.events import read_event
from infra.http.parts import Reader
from infra.http.paths import decoded_segment
from infra.http.problems import NO_RESOURCE, Problem

Value = TypeVar("Value")

FROM_HEADER = "from a header"
Header = Annotated[Value, FROM_HEADER]  # `idempotency_key: Header[str]`; `Header[str | None]` may be left out

# By the name of the parameter, whose type is a Struct.
STRUCT_READERS = {
    "query": Reader(read_query, {422: "a parameter is unknown or wrong"}),
    "form": Reader(
        read_form,
        {400: "the body is not a form", 415: "the body's type is not a form's", 422: "a field is missing or wrong"},
    ),
    "body": Reader(
        read_body,
        {
            400: "the body is not JSON",
            415: "the body's type is not JSON's",
            422: "a field is missing, unknown or wrong",
        },
    ),
    "event": Reader(
        read_event,
        {
            400: "the body is not JSON, or a header is none of an event",
            415: "several events at once",
            422: "an attribute is missing or wrong",
        },
    ),
}
BODY_READERS = STRUCT_READERS.keys() - {"query"}


class Parameter(NamedTuple):
    name: str
    kind: Any
    reader: Reader


def parameters_of(
    kinds: Mapping[str, Any], path_names: Collection[str], readers: Mapping[type, Reader]
) -> list[Parameter]:
    """In the order in which they are read: who asks before what is asked, and its body last."""
    found = filter(None, (parameter_of(name, kind, path_names, readers) for name, kind in kinds.items()))
    return sorted(
        found, key=lambda one: (not one.reader.security, one.name not in path_names, one.name in STRUCT_READERS)
    )


def parameter_of(name: str, kind: Any, path_names: Collection[str], readers: Mapping[type, Reader]) -> Parameter | None:
    """None when nothing fills it."""
    if name in path_names:
        checked = GivenId if kind == Id else kind
        return Parameter(name, checked, path_reader(name))
    if is_header(kind):
        return Parameter(name, kind, header_reader(name, kind))
    if isinstance(kind, type) and kind in readers:
        return Parameter(name, kind, readers[kind])
    if name in STRUCT_READERS and is_struct(kind):
        return Parameter(name, kind, STRUCT_READERS[name])
    return None


def path_reader(name: str) -> Reader:
    """What isn't of the parameter's type is no resource's name."""

    async def read(request: Request, kind: Any) -> Any:
        text = decoded_segment(request.path_params[name])
        try:
            value = msgspec.convert(text, kind, strict=False)
        except msgspec.ValidationError:
            value = None
        if value is None or "\0" in text:
            raise Problem(404, NO_RESOURCE)
        return value

    return Reader(read, {404: NO_RESOURCE})


def header_reader(name: str, kind: Any) -> Reader:
    """Read as a Struct with one field, so that what is wrong is told as of any other field."""
    header, optional = header_name(name), type(None) in get_args(get_args(kind)[0])
    struct = msgspec.defstruct(name, [(name, kind, None) if optional else (name, kind)], rename={name: header})

    async def read(request: Request, _: Any) -> Any:
        values = request.headers.getlist(header)
        return getattr(convert_pairs([(header, ", ".join(values))] if values else [], struct), name)

    return Reader(read, {422: f"{header} is {'' if optional else 'missing or '}wrong"}, headers=struct)


def header_name(name: str) -> str:
    """Of a Python name: `if_match` is If-Match."""
    return "ETag" if name == "etag" else name.replace("_", "-").title()


def is_header(kind: Any) -> bool:
    return get_origin(kind) is Annotated and FROM_HEADER in kind.__metadata__


def is_struct(kind: Any) -> bool:
    """Also `Page[Note]` is one."""
    kind = get_origin(kind) or kind
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
