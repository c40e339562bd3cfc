"""uvicorn's HTTP/1.1 with limits of our own: what it answers before the app can is a problem document, too."""

import asyncio
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from infra.base.errors import Unavailable
from infra.fast.batched_writes import WriteBatch
from infra.http.frame import Frame
from infra.http.limits import linger
from infra.http.problems import Problem, problem_response
from settings import Settings

KEEP_ALIVE = 75  # seconds; longer than the idle time-outs of the usual proxies (60 s), so that they close first
MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 100  # requests that wait for their turn on one connection: each takes far more memory than bytes
CR, LF, NUL = b"\r\n\0"  # numbers: searching bytes for bytes makes and drops a TypeError inside
HEADERS_TOO_LARGE = Problem(431, f"the headers may have at most {MAX_HEADER_BYTES} bytes")


class Cycle(RequestResponseCycle):
    """uvicorn's, but an answer's head leaves with the first part of its body: one write and one packet for both."""

    head = b""
    batch: WriteBatch | None = None

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self.response_started = True
            self.waiting_for_100_continue = False
            self.head = self.head_of(message["status"], message.get("headers", []))
        elif self.response_complete or message["type"] != "http.response.body":
            raise RuntimeError(f"{message['type']}, but the answer has begun or ended")
        else:
            more_body = message.get("more_body", False)
            data = self.head + self.framed(message.get("body", b""), more_body=more_body)
            if self.batch is None or more_body or not self.keep_alive:
                self.transport.write(data)
            else:
                self.batch.write(self.transport, data)
            self.head = b""
            if not more_body:
                self.complete()

    def head_of(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        lines = self.default_headers + headers
        named = dict(lines)
        if b"connection" in named and b"close" in named[b"connection"].lower():
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append((b"connection", b"close"))
        if b"content-length" in named:
            self.expected_content_length = int(named[b"content-length"])
        elif b"transfer-encoding" in named:
            self.chunked_encoding = True
        elif status not in (204, 304) and self.scope["method"] != "HEAD":
            self.chunked_encoding = True
            lines.append((b"transfer-encoding", b"chunked"))
        fields = list(map(b": ".join, lines))
        text = b"".join(fields)
        if CR in text or LF in text or NUL in text:
            raise RuntimeError("a header of the answer holds a line's end or NUL")  # else it could go on as another
        return b"%b%b\r\n\r\n" % (STATUS_LINE[status], b"\r\n".join(fields))

    def framed(self, body: bytes, *, more_body: bool) -> bytes:
        if self.scope["method"] == "HEAD":
            self.expected_content_length = 0
            return b""
        if self.chunked_encoding:
            chunk = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            return chunk if more_body else chunk + b"0\r\n\r\n"
        self.expected_content_length -= len(body)
        if self.expected_content_length < 0 or (self.expected_content_length and not more_body):
            raise RuntimeError("the answer's body is not as long as its Content-Length says")
        return body

    def complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()


class Refusal:
    """The answer to what isn't a request: a problem document, then the client may finish sending."""

    def __init__(self, problem: Problem | Unavailable) -> None:
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem_response(self.problem, scope["path"])
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await linger(receive)
        await send({"type": "http.response.body"})


class Protocol(HttpToolsProtocol):
    """Adds to uvicorn's HTTP/1.1 a limit and a time-out for headers, and problem documents for what isn't a request."""

    settings: Settings  # set on the subclass that Server makes
    batch: WriteBatch  # likewise
    header_bytes = 0  # of headers or trailers that aren't complete; 0 between requests and within a body
    received = 0  # bytes at once, which may be of several requests
    at_most = 0  # bytes that these headers can have: all that was received with any of them
    in_body = False
    refused = False
    refusal: Problem | Unavailable | None = None  # why the parser was stopped, when not by what it parses
    header_timer: asyncio.TimerHandle | None = None
    idle_timer: asyncio.TimerHandle | None = None
    idle_since: float | None = None  # the loop's seconds; None while something is asked

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.url, self.headers = b"", []
        self.header_timer = self.loop.call_later(self.settings.request_timeout, self.on_header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget_header_timer()
        if self.idle_timer:
            self.idle_timer.cancel()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has asked may close its side and still read: the connection stays until the last answer."""
        self.batch.flush()
        if self.cycle is None or self.cycle.response_complete or self.in_body:
            return False
        self.cycle.keep_alive = False
        if self.refused:  # nothing more to linger for
            self.cycle.more_body = False
            self.cycle.message_event.set()
        return True

    def shutdown(self) -> None:
        self.batch.flush()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return
        self.idle_since = None
        self.received = len(data)
        self.at_most += self.received
        self.header_bytes += self.received
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self.decline(data[upgrade.args[0] :])
            if self.header_bytes > MAX_HEADER_BYTES:
                self.refuse(HEADERS_TOO_LARGE)
        except httptools.HttpParserError:
            self.refuse(self.refusal or Problem(400, "this is not valid HTTP/1.1"))
        if self.header_bytes and not (self.in_body or self.refused or self.header_timer):
            self.header_timer = self.loop.call_later(self.settings.request_timeout, self.on_header_timeout)

    def decline(self, rest: bytes) -> None:
        """There is nothing to upgrade to: a request that asks for it is answered as what it is, HTTP/1.1."""
        if self.in_body:  # which this parser would take for the other protocol, or for the next request
            self.parser = parser_of_body(self, self.scope["headers"])
            self.parser.feed_data(rest)
        else:
            self.refused = True  # the answer closes the connection

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.at_most = self.received
        self.header_bytes = max(self.header_bytes, 1)

    def on_headers_complete(self) -> None:
        if self.at_most > MAX_HEADER_BYTES and self.too_large():
            self.refusal = HEADERS_TOO_LARGE
        if len(self.pipeline) >= MAX_PIPELINED:
            self.refusal = Unavailable("too many requests at once on one connection", retry_after=1)
        if self.refusal:
            raise ValueError  # stops the parser: nothing of the request reaches the app
        super().on_headers_complete()
        self.cycle.__class__ = Cycle  # uvicorn makes one of its own, with no way to name another
        self.cycle.batch = self.batch  # type: ignore[attr-defined]
        self.headers = []  # for trailers, which mean nothing here
        self.header_bytes, self.in_body = 0, True
        self.forget_header_timer()
        if self.app_state["stopping"].is_set() or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def too_large(self) -> bool:
        """Whether the headers are, exactly."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEADER_BYTES

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self.header_bytes = 0

    def on_message_complete(self) -> None:
        if not (self.parser.should_upgrade() and framing(self.scope["headers"])):  # else its body is still to come
            super().on_message_complete()
            self.header_bytes, self.in_body = 0, False

    def on_body_complete(self) -> None:
        """The end of a body after a declined upgrade."""
        super().on_message_complete()
        self.in_body, self.refused = False, True

    def on_response_complete(self) -> None:
        """As uvicorn's, which sets a timer for each answer; here one looks again when the last would have run out."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.idle_since = self.loop.time()
            self.idle_timer = self.idle_timer or self.loop.call_later(KEEP_ALIVE, self.on_idle_timer)

    def on_idle_timer(self) -> None:
        self.idle_timer = None
        if self.idle_since is not None:
            rest = self.idle_since + KEEP_ALIVE - self.loop.time()
            if rest > 0:
                self.idle_timer = self.loop.call_later(rest, self.on_idle_timer)
            else:
                self.transport.close()

    def forget_header_timer(self) -> None:
        if self.header_timer:
            self.header_timer.cancel()
            self.header_timer = None

    def on_header_timeout(self) -> None:
        self.header_timer = None
        if self.header_bytes:
            self.refuse(Problem(408, "the headers were sent too slowly"))
        elif not self.transport.is_closing():
            self.transport.close()

    def refuse(self, problem: Problem | Unavailable) -> None:
        """Answers after the requests before it, or in place of the one whose body has just broken off."""
        self.refused = True
        self.forget_header_timer()
        if self.transport.is_closing():
            return
        if self.in_body:
            self.cycle.scope["malformed_body"] = True  # type: ignore[typeddict-unknown-key]
            self.cycle.message_event.set()
            return
        scope: Any = {
            "type": "http",
            "method": "-",
            "path": unquote(self.url.partition(b"?")[0].decode("latin-1")) or "/",
            "headers": [],
            "client": self.client,
            "http_version": "1.1",
            "state": self.app_state,
        }
        pending = self.cycle
        self.cycle = Cycle(
            scope=scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=False,
            on_response=self.on_response_complete,
        )
        app: Any = Frame(Refusal(problem), debug=False)
        if pending is None or pending.response_complete:
            self._start_asgi_task(self.cycle, app)
        else:
            self.pipeline.appendleft((self.cycle, app))


class BodyCallbacks:
    """What a parser needs that reads one body and nothing else."""

    def __init__(self, protocol: Protocol) -> None:
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_body_complete


def parser_of_body(protocol: Protocol, headers: Iterable[tuple[bytes, bytes]]) -> httptools.HttpRequestParser:
    parser = httptools.HttpRequestParser(BodyCallbacks(protocol))
    lines = b"".join(b"%s: %s\r\n" % header for header in framing(headers))
    parser.feed_data(b"POST / HTTP/1.1\r\n" + lines + b"\r\n")
    return parser


def framing(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that say how long a body is, if there is one."""
    return [
        (name, value)
        for name, value in headers
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0 \t"))
    ]
