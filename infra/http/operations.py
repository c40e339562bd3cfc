"""Operations (OpenAPI's word): what a handler's signature says is what calls it and what /openapi.json is made from."""

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import starlette.requests
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from infra.http.answers import Answer, with_headers
from infra.http.parameters import parameters_of
from infra.http.parts import Json, Reader
from infra.http.problems import PROBLEM_HEADERS
from infra.http.service_tokens import authenticate_service

Handler = Callable[..., Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Declaration:
    """A handler and what its decorator says of it; see `operation`."""

    handler: Handler
    status: int
    problems: Mapping[int, str]
    answers: Mapping[int, Any]
    bearer: str | None
    bearer_optional: bool

    @property
    def __name__(self) -> str:
        """The handler's, for the route to be found by."""
        return self.handler.__name__

    async def __call__(self, request: Any, **arguments: Any) -> Any:
        """What the handler returns, without anything read for it."""
        return await self.handler(request, **arguments)


class Operation:
    """An ASGI app around a handler. It sends the Struct, Answer, None (204) or Response that the handler returns."""

    def __init__(self, declared: Declaration, path_names: Collection[str], readers: Mapping[type, Reader]) -> None:
        self.handler = declared.handler
        self.__name__ = self.handler.__name__
        self.bearer = declared.bearer
        self.bearer_optional = declared.bearer_optional
        kinds = get_type_hints(self.handler, include_extras=True)
        returned, self.answer_headers = body_and_headers(kinds.pop("return"))
        self.status = 204 if returned is None else declared.status
        self.answers = declared.answers or {self.status: returned}
        self.call = with_headers(self.handler, self.status) if self.answer_headers else self.handler
        self.parameters = parameters_of(kinds, path_names, readers)
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
            self.problems |= {
                401: f"not the token in {setting}",
                404: f"{setting} is not set",
                429: "too many wrong tokens",
            }
        self.problems |= declared.problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = starlette.requests.Request(scope, receive, send)
        if self.bearer:
            settings = request.state.settings
            token = getattr(settings, self.bearer)
            if token or settings.sys_env == "prod" or not self.bearer_optional:
                await authenticate_service(request, token)
        arguments = {}
        for name, kind, reader in self.parameters:
            arguments[name] = await reader.read(request, kind)
        answer = await self.call(request, **arguments)
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

    def request_header_names(self) -> Iterator[str]:
        """Those that it reads."""
        if self.security:
            yield "Authorization"
        for parameter in self.parameters:
            if parameter.reader.headers:
                yield from parameter.reader.headers.__struct_encode_fields__

    def answer_header_names(self) -> Iterator[str]:
        """Those of its answers."""
        if self.answer_headers:
            yield from self.answer_headers.__struct_encode_fields__
        yield from (PROBLEM_HEADERS[status] for status in self.problems if status in PROBLEM_HEADERS)


def body_and_headers(returned: Any) -> tuple[Any, type[msgspec.Struct] | None]:
    """What a handler's return annotation says."""
    body, headers = get_args(returned) if get_origin(returned) is Answer else (returned, None)
    return (None if body is type(None) else body), headers


def operations_of(routes: Sequence[BaseRoute]) -> Iterator[tuple[Route, str, Operation]]:
    """With each method of its own."""
    for route in routes:
        if isinstance(route, Route) and isinstance(route.endpoint, Operation):
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield route, method, route.endpoint


def operation(
    status: int = 200,
    *,
    problems: Mapping[int, str] | None = None,
    answers: Mapping[int, Any] | None = None,
    bearer: str | None = None,
    bearer_optional: bool = False,
) -> Callable[[Handler], Declaration]:
    """Declares a handler. Beside `request` it may have parameters named as in the route's path, of a `Header[...]`, of
    the types that the parts' readers fill (such as who asks), and of STRUCT_READERS, read into the Struct of their
    annotation.

    `problems` are the statuses of the Problems that it raises itself, and when. `answers` are for a handler that makes
    its Responses: the Struct, or the media type, of each status. `bearer` is the setting that holds the bearer
    token of the services that may ask; `bearer_optional`: where it isn't set anyone may, but not in prod.
    """
    if not isinstance(status, int):
        raise TypeError("expected @operation(), with parentheses")
    return lambda handler: Declaration(handler, status, problems or {}, answers or {}, bearer, bearer_optional)
