"""What a request may be and take: host, size, time, and how many at once. Middleware in pure ASGI."""

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.base.errors import Unavailable
from infra.base.time_limits import TimeLimit
from infra.http.problems import Problem, problem_response
from settings import Settings

PACE = 500  # bytes a second that a body has to be sent with, and an answer to be taken
HEAD_START = 5.0  # seconds in which it needn't be, or a sixth of REQUEST_TIMEOUT where that is less
SMALL_BODY = 8 * 1024  # bytes of a body that are always taken
MAX_BODIES = 16 * 1024 * 1024  # bytes beyond these, of all bodies that are in memory at once
LINGER = 2  # seconds to read on and discard after an early answer: closing at once would reset it away (RFC 9112, 9.6)


class RequestLimits:
    """Turns a request away with 400, 408, 413, 503 or 504. /health is never turned away for its host or for load."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.settings = settings
        self.any_host = "*" in settings.allowed_hosts
        self.time_limit = TimeLimit(settings.request_timeout)
        self.head_start = min(HEAD_START, settings.request_timeout / 6)
        self.max_bodies = max(MAX_BODIES, settings.max_body_bytes)
        self.active = 0  # requests, but for those whose body is awaited: these cost nothing yet
        self.bodies = 0  # bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body = RequestBody(scope, receive, send, self)
        if not body.complete:
            receive, send = body.receive, body.send
        refusal = self.refusal(scope, body)
        if refusal:
            await problem_response(refusal, scope["path"])(scope, receive, send)
            await body.end()
            return
        self.active += 1
        limit = self.time_limit()
        try:
            with limit:
                await self.app(scope, receive, send)
        except TimeoutError:
            if not limit.expired or "status" in scope:  # it has begun to answer
                raise
            late = (
                Problem(408, "the request was sent too slowly") if body.awaited else Problem(504, "no answer in time")
            )
            await problem_response(late, scope["path"])(scope, receive, send)
        finally:
            self.active -= 1
            self.bodies -= body.held
        if body.ended_early:
            await body.end()

    def refusal(self, scope: Scope, body: "RequestBody") -> Problem | Unavailable | None:
        if not is_probe(scope):
            if self.active >= self.settings.max_concurrency:
                return too_many()
            if not (self.any_host or host_allowed(Headers(scope=scope).get("host", ""), self.settings.allowed_hosts)):
                return Problem(400, "the Host header names no host of this service")
        return body.too_large() if body.declared > body.limit else None


class RequestBody:
    """Counts the body as the handler reads it; answers that come before its end close the connection gently."""

    declared = received = 0
    held = 0  # bytes that count among those of all bodies
    complete = True
    awaited = False  # the handler is waiting for more of it
    awaited_since = 0.0
    ended_early = False

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: RequestLimits) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.limits = limits
        self.limit = limits.settings.max_body_bytes
        for name, value in scope["headers"]:
            if name == b"content-length":
                self.declared = int(value)
                self.complete = self.complete and not self.declared
            elif name == b"transfer-encoding":
                self.complete = False

    async def receive(self) -> Message:
        message = await (self._receive() if self.complete else self.next_part())
        if self.scope.get("malformed_body"):
            raise Problem(400, "the body's framing is not valid HTTP")
        if message["type"] == "http.request":
            self.received += len(message.get("body", b""))
            self.complete = self.complete or not message.get("more_body", False)
            self.check_size()
        else:
            self.complete = True
        return message

    async def next_part(self) -> Message:
        """Meanwhile the request has no slot of MAX_CONCURRENCY. Raises a 408 Problem when it is sent below PACE."""
        self.awaited_since = self.awaited_since or asyncio.get_running_loop().time()
        self.awaited = True
        self.limits.active -= 1
        try:
            async with asyncio.timeout_at(self.awaited_since + self.limits.head_start + self.received / PACE):
                return await self._receive()
        except TimeoutError:
            raise Problem(408, "the body was sent too slowly") from None
        finally:
            self.limits.active += 1
            self.awaited = False

    def check_size(self) -> None:
        if self.received > self.limit:
            raise self.too_large()
        held = max(0, self.received - SMALL_BODY)
        self.limits.bodies += held - self.held
        self.held = held
        if held and self.limits.bodies > self.limits.max_bodies:
            raise Unavailable("too much is being sent at once", retry_after=1)
        if self.complete and self.limits.active > self.limits.settings.max_concurrency and not is_probe(self.scope):
            raise too_many()

    def too_large(self) -> Problem:
        return Problem(413, f"the body may have at most {self.limit} bytes")

    async def send(self, message: Message) -> None:
        if not self.complete:
            message = self.close_gently(message)
        await self._send(message)

    def close_gently(self, message: Message) -> Message:
        if message["type"] == "http.response.start":
            others = [header for header in message.get("headers", ()) if header[0].lower() != b"connection"]
            return {**message, "headers": [*others, (b"connection", b"close")]}
        if not message.get("more_body", False):
            self.ended_early = True
            return {**message, "more_body": True}
        return message

    async def end(self) -> None:
        """After the answer, and no part of the time and the load that the request may take."""
        if self.ended_early:
            await linger(self._receive)
            await self._send({"type": "http.response.body"})


def is_probe(scope: Scope) -> bool:
    path: str = scope["path"]
    return path.startswith("/health/")


def too_many() -> Unavailable:
    return Unavailable("too many requests at once", retry_after=1)


async def linger(receive: Receive) -> None:
    """Discards what is still being sent, until its end or the client's."""
    try:
        async with asyncio.timeout(LINGER):
            while (await receive()).get("more_body", False):
                pass
    except TimeoutError:
        pass


def host_allowed(host: str, allowed: tuple[str, ...]) -> bool:
    """`*.example.com` allows every host below example.com; the port doesn't matter, nor the root's dot at the end."""
    name = host.lower().rsplit(":", 1)[0] if not host.endswith("]") else host.lower()
    name = name.removesuffix(".")
    return any(name == one.lower() or (one.startswith("*.") and name.endswith(one[1:].lower())) for one in allowed)
