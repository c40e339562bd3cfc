"""Operations (OpenAPI's word): what a handler's signature says is what calls it and what /openapi.json is made from."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
import starlette.requests
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra.http.bodies import read_body, read_event, read_form, read_query
from infra.http.parts import Json, Reader
from infra.http.service_tokens import authenticate_service

Handler = Callable[..., Awaitable[Any]]

# By the name of the parameter, whose type is a Struct; read in this order, after those that are found by their type.
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
        {400: "the body is not JSON", 415: "several events at once", 422: "an attribute is missing or wrong"},
    ),
}


@dataclass(frozen=True, slots=True)
class Declaration:
    """A handler and what its decorator says of it; see `operation`."""

    handler: Handler
    status: int
    problems: Mapping[int, str]
    answers: Mapping[int, Any]
    bearer: str | None
    bearer_optional: bool

    async def __call__(self, request: Any, **arguments: Any) -> Any:
        """What the handler returns, without anything read for it."""
        return await self.handler(request, **arguments)


class Parameter(NamedTuple):
    name: str
    kind: Any
    reader: Reader


class Operation:
    """An ASGI app around a handler. It sends the Struct, None (204) or Response that the handler returns."""

    def __init__(self, declared: Declaration, readers: Mapping[type, Reader]) -> None:
        self.handler = declared.handler
        self.__name__ = self.handler.__name__
        self.bearer = declared.bearer
        self.bearer_optional = declared.bearer_optional
        returned = self.handler.__annotations__["return"]
        self.status = 204 if returned is None else declared.status
        self.answers = declared.answers or {self.status: returned}
        self.parameters = parameters_of(self.handler, readers)
        self.security: dict[str, Json] = {}
        self.problems: dict[int, str] = {}
        for parameter in self.parameters:
            self.security |= parameter.reader.security
            self.problems |= parameter.reader.problems
        if self.bearer:
            setting = self.bearer.upper()
            self.security[self.bearer] = {
                "type": "http",
                "scheme": "bearer",
                "description": f"{setting}, for other services",
            }
            self.problems |= {401: f"not the token in {setting}", 404: f"{setting} is not set"}
        self.problems |= declared.problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = starlette.requests.Request(scope, receive, send)
        if self.bearer:
            settings = request.state.settings
            token = getattr(settings, self.bearer)
            if token or settings.sys_env == "prod" or not self.bearer_optional:
                authenticate_service(request, token)
        arguments = {}
        for name, kind, reader in self.parameters:
            arguments[name] = await reader.read(request, kind)
        answer = await self.handler(request, **arguments)
        if isinstance(answer, Response):
            await answer(scope, receive, send)
        elif answer is None:
            await send({"type": "http.response.start", "status": self.status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:  # what json_response() would send, made sooner
            body = msgspec.json.encode(answer)
            headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def parameters_of(handler: Handler, readers: Mapping[type, Reader]) -> list[Parameter]:
    """In the order in which they are read: who asks before what is asked."""
    kinds = {name: kind for name, kind in handler.__annotations__.items() if name not in ("request", "return")}
    by_type = [Parameter(name, kind, readers[kind]) for name, kind in kinds.items() if kind in readers]
    by_name = [Parameter(name, kinds[name], reader) for name, reader in STRUCT_READERS.items() if name in kinds]
    return by_type + by_name


def operation(
    status: int = 200,
    *,
    problems: Mapping[int, str] | None = None,
    answers: Mapping[int, Any] | None = None,
    bearer: str | None = None,
    bearer_optional: bool = False,
) -> Callable[[Handler], Declaration]:
    """Declares a handler. Beside `request` it may have parameters of the types that the parts' readers fill (such as
    who asks), and of STRUCT_READERS, read into the Struct of their annotation.

    `problems` are the statuses of the Problems that it raises itself, and when. `answers` are for a handler that makes
    its Responses: the Struct, or the media type, of each status. `bearer` is the setting that holds the bearer
    token of the services that may ask; `bearer_optional`: where it isn't set anyone may, but not in prod.
    """
    return lambda handler: Declaration(handler, status, problems or {}, answers or {}, bearer, bearer_optional)
