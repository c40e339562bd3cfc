"""Operations (OpenAPI's word): what a handler's signature says is what calls it and what /openapi.json is made from."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import starlette.requests
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from handlers.accounts.principal import authenticate, authenticate_service
from infra.http.bodies import read_body, read_event, read_form, read_query
from infra.state import Request

Handler = Callable[..., Awaitable[Any]]

READERS: Mapping[str, Callable[[Request, Any], Awaitable[Any]]] = {
    "principal": lambda request, _: authenticate(request),
    "query": read_query,
    "form": read_form,
    "body": read_body,
    "event": read_event,
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
    "event": {
        400: "the body is not JSON",
        415: "several events at once",
        422: "an attribute is missing or wrong",
    },
}


class Operation:
    """An ASGI app around a handler. It sends the Struct, None (204) or Response that the handler returns.

    Beside `request` a handler may have the parameters of READERS; they are read in its order, all but the `principal`
    into the Struct of their annotation.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        status: int,
        problems: Mapping[int, str],
        answers: Mapping[int, Any],
        bearer: str | None,
        bearer_optional: bool,
    ) -> None:
        self.handler = handler
        self.__name__ = handler.__name__
        hints = dict(handler.__annotations__)
        returned = hints.pop("return")
        self.parameters = {name: hint for name, hint in hints.items() if name != "request"}
        self.status = 204 if returned is None else status
        self.answers = answers or {self.status: returned}
        self.bearer = bearer
        self.bearer_optional = bearer_optional
        self.problems: dict[int, str] = {}
        for name in self.parameters:
            self.problems |= PROBLEMS[name]
        if bearer:
            self.problems |= {401: f"not the token in {bearer.upper()}", 404: f"{bearer.upper()} is not set"}
        self.problems |= problems

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request: Request = starlette.requests.Request(scope, receive, send)
        if self.bearer:
            settings = request.state.settings
            token = getattr(settings, self.bearer)
            if token or settings.sys_env == "prod" or not self.bearer_optional:
                authenticate_service(request, token)
        arguments = {}
        for name, hint in self.parameters.items():
            arguments[name] = await READERS[name](request, hint)
        answer = await self.handler(request, **arguments)
        if isinstance(answer, Response):
            await answer(scope, receive, send)
        elif answer is None:
            await send({"type": "http.response.start", "status": self.status, "headers": []})
            await send({"type": "http.response.body", "body": b""})
        else:  # what json_response() would send, for 4 us less
            body = msgspec.json.encode(answer)
            headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": self.status, "headers": headers})
            await send({"type": "http.response.body", "body": body})


def operation(
    status: int = 200,
    *,
    problems: Mapping[int, str] | None = None,
    answers: Mapping[int, Any] | None = None,
    bearer: str | None = None,
    bearer_optional: bool = False,
) -> Callable[[Handler], Operation]:
    """Makes an operation of a handler.

    `problems` are the statuses of the Problems that it raises itself, and when. `answers` are for a handler that makes
    its Responses: the Struct, or the media type, of each status. `bearer` is the setting that holds the bearer
    token of the services that may ask; `bearer_optional`: where it isn't set anyone may, but not in prod.
    """
    return lambda handler: Operation(
        handler,
        status=status,
        problems=problems or {},
        answers=answers or {},
        bearer=bearer,
        bearer_optional=bearer_optional,
    )
