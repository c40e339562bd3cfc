"""CORS (https://fetch.spec.whatwg.org/#http-cors-protocol) for the pages of CORS_ORIGINS. Middleware in pure ASGI."""

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.http.problems import Problem, problem_response


class Cors(CORSMiddleware):
    """Starlette's, with a problem document for a preflight that it refuses."""

    def __init__(self, app: ASGIApp, origins: tuple[str, ...]) -> None:
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-ID", "traceparent"],
            expose_headers=["X-Request-ID", "traceparent", "Retry-After"],
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
