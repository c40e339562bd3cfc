"""CORS (https://fetch.spec.whatwg.org/#http-cors-protocol) for the pages of CORS_ORIGINS. Middleware in pure ASGI."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.http.operations import operations_of
from infra.http.problems import Problem, problem_response

IDS = {"X-Request-ID", "traceparent"}  # of every request and answer


class Cors(CORSMiddleware):
    """Starlette's, for the methods and headers that the operations declare, with a problem document for a preflight
    that it refuses."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...], routes: Sequence[Route] = ()) -> None:
        operations = list(operations_of(routes))
        asked = IDS.union(*(operation.request_header_names() for *_, operation in operations))
        answered = {*IDS, "Retry-After"}.union(*(operation.answer_header_names() for *_, operation in operations))
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=sorted({method for _, method, _ in operations}),
            allow_headers=sorted(asked),
            expose_headers=sorted(answered),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope) if scope["type"] == "http" else Headers()
        if scope.get("method") == "OPTIONS" and {"origin", "access-control-request-method"} <= set(headers):
            response = self.preflight_response(headers)
            if response.status_code != 200:
                response = problem_response(Problem(400, bytes(response.body).decode()), scope["path"])
            await response(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def send(self, message: Message, send: Send, request_headers: Headers) -> None:
        """With a message of its own: the app's may be one that answers other requests, too."""
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            message = {**message, "headers": headers}
        await super().send(message, send, request_headers)
