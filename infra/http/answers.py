"""Answers with headers of their own, which /openapi.json tells: a handler's `-> Answer[Note, Tagged]`."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Generic, NamedTuple, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct
from starlette.responses import Response

from infra.http.etags import ETag
from infra.http.parameters import header_name

Body = TypeVar("Body")
Sent = TypeVar("Sent", bound="Headers")


class Headers(Struct, rename=header_name):
    """A header is a field: `retry_after` is Retry-After. One that is UNSET isn't sent."""


class Tagged(Headers):
    etag: ETag


class Created(Tagged):
    location: Annotated[
        str, Meta(description="where it is", examples=["/v1/notes/01a20cc4-61db-78ba-be5f-cae656cb245f"])
    ]


class Answer(NamedTuple, Generic[Body, Sent]):
    """What a handler returns that sends `headers`. `body`: a Struct, or None for a 204."""

    body: Body
    headers: Sent


def with_headers(handler: Callable[..., Awaitable[Any]], status: int) -> Callable[..., Awaitable[Response]]:
    """A handler that returns a Response, of one that returns an Answer."""

    async def call(request: Any, **arguments: Any) -> Response:
        body, headers = await handler(request, **arguments)
        fields = zip(headers.__struct_encode_fields__, msgspec.structs.astuple(headers), strict=True)
        sent = {name: str(value) for name, value in fields if value is not UNSET}
        if body is None:
            return Response(status_code=status, headers=sent)
        return Response(msgspec.json.encode(body), status, sent, media_type="application/json")

    return call
