"""Operations (OpenAPI's word): what a handler's signature says is what calls it and what /openapi.json is made from."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import starlette.requests
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from infra.bearer import authenticate, authenticate_service
from infra.bodies import json_response, read_body, read_form, read_query
from infra.state import Request

Handler = Callable[..., Awaitable[Any]]

READERS: Mapping[str, Callable[[Request, Any], Awaitable[Any]]] = {
    "principal": lambda request, _: authenticate(request),
    "query": read_query,
    "form": read_form,
    "body": read_body,
}
PROBLEMS = {
    "principal": {401: "no access token of a live session"},
    "query": {422: "a parameter is unknown or wrong"},
    "form": {400: "the body is not a form", 415: "the body's type is not a form's", 422: "a field is missing or wrong"},
    "body": {
        400: "the body is not JSON",
        415: "the body's type is not JSON's",
        422: "a field is missing, unknown or wrong",
    },
}


class Operation:
    """An ASGI app around a handler. It sends the Struct, None (204) or Response that the handler returns.

    Beside `request` a handler may have the parameters `principal`, `query`, `form` and `body`; they are read in its
    order, the last three into the Struct of their annotation.
    """

    def __init__(
        self,
        handler: Handler,
        status: int,
        problems: Mapping[int, str],
        answers: Mapping[int, Any],
        bearer: str | None,
    ) -> None:
        self.handler = handler
        self.__name__ = handler.__name__
        self.parameters = {name: hint for name, hint in handler.__annotations__.items() if name in READERS}
        returned = handler.__annotations__["return"]
        self.status = 204 if returned is None else status
        self.answers = answers or {self.status: returned}
        self.bearer = bearer
        self.problems = dict(problems)
        for name in self.parameters:
            self.problems |= PROBLEMS[name]
        if bearer:
            self.problems |= {401: "not the bearer token of a service", 404: f"{bearer.upper()} is not set"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Request = starlette.requests.Request(scope, receive, send)
        if self.bearer:
            authenticate_service(request, getattr(request.state.settings, self.bearer))
        arguments = {name: await READERS[name](request, hint) for name, hint in self.parameters.items()}
        answer = await self.handler(request, **arguments)
        if answer is None:
            answer = Response(status_code=self.status)
        elif not isinstance(answer, Response):
            answer = json_response(answer, self.status)
        await answer(scope, receive, send)


def operation(
    status: int = 200,
    *,
    problems: Mapping[int, str] | None = None,
    answers: Mapping[int, Any] | None = None,
    bearer: str | None = None,
) -> Callable[[Handler], Operation]:
    """Makes an operation of a handler.

    `problems` are the statuses of the Problems that it raises itself, and when. `answers` are for a handler that makes
    its Responses: the Struct, or the media type, of each status. `bearer` is the setting that holds the bearer
    token of the services that may ask.
    """
    return lambda handler: Operation(handler, status, problems or {}, answers or {}, bearer)
