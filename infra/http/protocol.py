"""uvicorn's HTTP/1.1 with limits of our own: what it answers before the app can is a problem document, too."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

import httptools
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from infra.base.errors import Unavailable
from infra.http.connections import EXTRA_SECONDS, ConnectionLimits
from infra.http.fields import members
from infra.http.heads import VERSIONS, check_codings, check_hosts, target_of, unknown_version
from infra.http.http10 import WithoutChunks
from infra.http.limits import LINGER, PACE, linger
from infra.http.paths import decoded_path
from infra.http.problems import Problem, problem_response
from infra.http.reading import SMALL, Flow, Turns
from settings import Settings

MAX_HEADER_BYTES = 32 * 1024
UNCOUNTED = 64  # bytes at most of a method, a version and the ends of lines
MAX_HEADER_FIELDS = 100  # each takes far more memory than it has bytes
MAX_PIPELINED = 100  # requests that wait for their turn on one connection
MAX_UNSENT = 16 * 1024  # bytes of answers that the kernel doesn't take, after which no more are made
MAX_BODY_WAITING = 8 * 1024  # bytes of a body that nobody reads yet, after which no more are taken
MANY_PARTS, SMALL_PART = 4096, 16  # so many chunks of a body, of fewer bytes on the average, are no way to send it
WATCHED = frozenset({b"host", b"transfer-encoding", b"expect"})  # what a request's head is checked for
# What the answer to what isn't a request, and its line, are made with; it waits for the client, and so do they.
OF_A_REFUSAL = frozenset(
    {
        b"origin",
        b"traceparent",
        b"user-agent",
        b"x-cloud-trace-context",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
    }
)
END = b"\r\n\r\n"  # of a request without a body, or with chunks
HEADERS_TOO_LARGE = Problem(
    431, f"the headers may have at most {MAX_HEADER_FIELDS} fields and {MAX_HEADER_BYTES} bytes"
)
TOO_MANY_PIPELINED = Unavailable("too many requests at once on one connection", retry_after=1)
TOO_MANY_CONNECTIONS = Unavailable("too many connections", retry_after=1)


class Refusal:
    """The answer to what isn't a request: a problem document, then the client may finish sending.

    The app gets it as `scope["refusal"]`, an ASGI app that its Frame calls in place of what it frames.
    """

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

    running: RequestResponseCycle | None = None  # the answer under way; uvicorn's `cycle` is the newest request's
    header_bytes = 0  # of headers or trailers that aren't complete; 0 between requests and within a body
    received = 0  # bytes at once, which may be of several requests
    at_most = 0  # bytes that these headers can have: all that was received with any of them
    version = ""  # of HTTP, once the request line is known to say it
    data = unread = b""  # what was received, after what came before of a request line
    begun = 0  # requests in that
    in_body = False
    parts = body_bytes = 0  # of the body that is being read
    refused = False
    refusal: Problem | Unavailable | None = None  # why the parser was stopped, when not by what it parses
    header_timer: asyncio.TimerHandle | None = None
    idle_timer: asyncio.TimerHandle | None = None
    idle_since: float | None = None  # the loop's seconds; None while something is asked
    late = False  # the time of an idle connection has run out: it lingers, and its next answer is the last
    waiting = b""  # what came while an answer was under way, unread
    too_many = False  # the requests after those that wait are refused
    last = False  # it has one of the last file descriptors
    extra = False  # over a limit of connections: for /health only
    write_timer: asyncio.TimerHandle | None = None
    unsent = 0  # bytes, when the timer was set

    def __init__(
        self,
        settings: Settings,
        limits: ConnectionLimits,
        turns: Turns,
        wrap: Callable[[asyncio.Transport], asyncio.Transport] | None,
        *options: Any,
    ) -> None:
        super().__init__(*options)
        self.settings = settings
        self.limits = limits
        self.turns = turns
        self.wrap = wrap
        self.keep_alive = settings.keep_alive

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self.wrap:
            transport = self.wrap(transport)
        transport.set_write_buffer_limits(MAX_UNSENT)
        super().connection_made(transport)
        self.flow: Flow = Flow(transport)
        self.url, self.headers = b"", []
        self.watched: list[tuple[bytes, bytes]] = []
        self.known = [(b"", b"")]  # of a request before, whose Host names one and that had no other
        self.extra = not self.limits.enter(self, self.client[0] if self.client else None, last=self.last)
        within = EXTRA_SECONDS if self.extra else self.settings.request_timeout
        self.header_timer = self.loop.call_later(within, self.on_header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.leave(self)
        self.waiting = b""
        self.forget_header_timer()
        for timer in (self.idle_timer, self.write_timer):
            if timer:
                timer.cancel()
        if self.running:
            self.running.disconnected = True  # uvicorn tells the newest request only, and the others write on
            self.running.message_event.set()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has asked may close its side and still read: the connection stays until the last answer."""
        if self.cycle is None or self.cycle.response_complete or self.in_body:
            self.transport.close()
            return True
        self.cycle.keep_alive = False
        if self.refused:  # nothing more to linger for
            self.cycle.more_body = False
            self.cycle.message_event.set()
        return True

    def data_received(self, data: bytes) -> None:
        if self.refused or self.too_many:
            return
        self.idle_since = None
        if self.waiting or self.is_busy():
            self.wait(self.waiting + data)
        elif len(data) > SMALL:
            self.wait(data)
            self.turns.add(self)
        elif rest := self.read(data):
            self.wait(rest)

    def is_busy(self) -> bool:
        """Whether an answer is under way, and what comes now no part of its request."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and (not self.in_body or bool(self.pipeline))

    def read(self, data: bytes) -> bytes:
        """Reads request by request until an answer is under way. Returns what is left."""
        end = data.find(END) + len(END)
        while len(END) <= end < len(data):
            self.parse(data[:end])
            data = data[end:]
            if self.refused:
                return b""
            if self.is_busy():
                return data
            end = data.find(END) + len(END)
        self.parse(data)
        return b""

    def wait(self, data: bytes) -> None:
        """Keeps what is next as the bytes that it is: as requests they would take many times as much memory."""
        self.waiting = data
        self.flow.block()
        if self.is_busy():
            *before, rest = data.split(END, MAX_PIPELINED)
            if len(before) == MAX_PIPELINED and rest:
                self.too_many = True
                self.waiting = data[: -len(rest)]

    def read_some(self) -> bool:
        """Of what waits; whether to come again."""
        if self.refused or self.transport.is_closing():
            return False
        data, rest = self.waiting[:SMALL], self.waiting[SMALL:]
        self.waiting = b""
        if data:
            rest = self.read(data) + rest
        if rest and not self.refused:
            self.wait(rest)
        elif self.too_many and not self.is_busy():
            self.refuse(TOO_MANY_PIPELINED)
        elif not self.too_many:
            self.flow.blocked = False
            if not self.in_body or len(self.cycle.body) <= MAX_BODY_WAITING:
                self.flow.resume_reading()
        return bool(rest) and not (self.refused or self.is_busy())

    def parse(self, data: bytes) -> None:
        self.received = len(data)
        self.at_most += self.received
        self.header_bytes += self.received
        self.data = data if self.version else self.unread + data
        self.begun = 0
        try:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                self.decline(data[upgrade.args[0] :])
            if self.header_bytes > MAX_HEADER_BYTES + UNCOUNTED:
                self.refuse(HEADERS_TOO_LARGE)
        except httptools.HttpParserError:
            self.refuse(self.refusal or unknown_version(self.url, self.data))
        if self.header_bytes:
            self.keep_request_line()
        self.data = b""
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
        self.begun += 1
        self.version, self.watched = "", []

    def on_header(self, name: bytes, value: bytes) -> None:
        """As uvicorn's, without the white space that httptools leaves at a value's end (RFC 9110, 5.5)."""
        name = name.lower()
        if name in WATCHED:
            self.watched.append((name, value))
        self.headers.append((name, value.strip()))  # the parser takes blanks and tabs only
        if len(self.headers) > MAX_HEADER_FIELDS:
            self.refusal = HEADERS_TOO_LARGE
            raise ValueError

    def keep_request_line(self) -> None:
        """Of headers that aren't complete."""
        if self.headers and not (self.version or self.in_body):
            self.read_version()
        self.unread = b"" if self.version or self.refused else self.data[-MAX_HEADER_BYTES:]

    def read_version(self) -> None:
        """Refuses another version, and another protocol, whose names the parser takes for HTTP's."""
        self.version = "1.1"
        if self.begun > 1 or self.url + b" HTTP/1.1\r\n" not in self.data:
            self.version = self.parser.get_http_version()
            if self.version not in VERSIONS or b"%s HTTP/%s\r\n" % (self.url, self.version.encode()) not in self.data:
                self.refusal = unknown_version(self.url, self.data)

    def check_head(self) -> None:
        try:
            self.read_head()
        except Problem as problem:
            self.refusal = self.refusal or problem
        if len(self.watched) == 1 and self.watched[0][0] == b"host" and not self.refusal:
            self.known = self.watched

    def read_head(self) -> None:
        """Raises a Problem for what the parser takes and RFC 9112 doesn't."""
        hosts = [value.strip(b" \t") for name, value in self.watched if name == b"host"]
        check_hosts(hosts, self.version)
        if not self.url.startswith(b"/") or b"#" in self.url:
            self.url, authority = target_of(self.parser.get_method(), self.url)
            if authority is not None:
                self.headers[:] = [header for header in self.headers if header[0] != b"host"] + [(b"host", authority)]
        if len(self.watched) > len(hosts):
            if codings := [value for name, value in self.watched if name == b"transfer-encoding"]:
                check_codings(codings, self.version)
            expected = members(value.decode("latin-1").lower() for name, value in self.watched if name == b"expect")
            self.expect_100_continue = "100-continue" in expected and self.version == "1.1"
        if self.version == "1.0":
            self.app = WithoutChunks(self.app, self)

    def on_headers_complete(self) -> None:
        if not self.version:
            self.read_version()
        if self.at_most > MAX_HEADER_BYTES and self.too_large():
            self.refusal = HEADERS_TOO_LARGE
        if len(self.pipeline) >= MAX_PIPELINED:
            self.refusal = TOO_MANY_PIPELINED
        if self.watched != self.known or self.url[:1] != b"/" or b"#" in self.url or self.version != "1.1":
            self.check_head()
        if self.extra and not self.url.startswith(b"/health/"):
            self.refusal = TOO_MANY_CONNECTIONS
        if self.refusal:
            raise ValueError  # stops the parser: nothing of the request reaches the app
        super().on_headers_complete()
        if not self.pipeline:
            self.running = self.cycle
        self.headers = []  # for trailers, which mean nothing here
        self.header_bytes, self.in_body = 0, True
        self.parts = self.body_bytes = 0
        self.forget_header_timer()
        if self.late or self.extra or self.app_state["stopping"].is_set() or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def too_large(self) -> bool:
        """Whether the headers are, exactly."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEADER_BYTES

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self.header_bytes = 0
        self.parts += 1
        self.body_bytes += len(body)
        if self.parts > MANY_PARTS and self.body_bytes < self.parts * SMALL_PART:
            raise ValueError  # as malformed as what no parser takes
        if len(self.cycle.body) > MAX_BODY_WAITING:
            self.flow.pause_reading()

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
        if self.pipeline:
            self.running = self.pipeline[-1][0]
            super().on_response_complete()  # starts it
            if self.waiting:
                self.turns.add(self)
        elif not self.cycle.keep_alive:
            self.waiting = b""
            self.watch_writing()
        elif self.waiting or self.too_many:
            self.turns.add(self)
        else:
            self.flow.resume_reading()
            self.idle_since = self.loop.time()
            self.idle_timer = self.idle_timer or self.loop.call_later(self.keep_alive, self.on_idle_timer)

    def on_idle_timer(self) -> None:
        """Closes nothing at once: a request that was sent in time, and comes now, is still answered, as the last."""
        self.idle_timer = None
        if self.idle_since is not None:
            rest = self.idle_since + self.keep_alive - self.loop.time()
            if rest <= 0 and self.late:
                self.hang_up()
                return
            self.late = rest <= 0
            self.idle_timer = self.loop.call_later(LINGER if self.late else rest, self.on_idle_timer)

    def hang_up(self) -> None:
        """Says the end first: closing at once would reset what still comes (RFC 9112, 9.6)."""
        self.refused = True
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.header_timer = self.loop.call_later(LINGER, self.transport.close)
            self.watch_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.write_timer:
            self.write_timer.cancel()
            self.write_timer = None
        if self.transport.is_closing():
            self.watch_writing()

    def watch_writing(self) -> None:
        """Whoever doesn't take an answer at PACE is cut off, else it would stay in memory for as long as they like."""
        self.unsent = self.transport.get_write_buffer_size()
        if self.unsent and not self.write_timer:
            self.write_timer = self.loop.call_later(self.settings.request_timeout, self.on_write_timer)

    def on_write_timer(self) -> None:
        self.write_timer = None
        if self.unsent - self.transport.get_write_buffer_size() < PACE * self.settings.request_timeout:
            self.transport.abort()
        else:
            self.watch_writing()

    def forget_header_timer(self) -> None:
        if self.header_timer:
            self.header_timer.cancel()
            self.header_timer = None

    def on_header_timeout(self) -> None:
        self.header_timer = None
        if self.header_bytes:
            self.refuse(Problem(408, "the headers were sent too slowly"))
        elif self.extra:
            self.transport.close()
        elif self.late:
            self.hang_up()
        else:
            self.late = True
            self.header_timer = self.loop.call_later(LINGER, self.on_header_timeout)

    def refuse(self, problem: Problem | Unavailable) -> None:
        """Answers after the requests before it, or in place of the one whose body has just broken off."""
        self.refused = True
        self.forget_header_timer()
        self.headers = [header for header in self.headers if header[0] in OF_A_REFUSAL][-len(OF_A_REFUSAL) :]
        if self.transport.is_closing():
            return
        if self.in_body:
            self.cycle.scope["malformed_body"] = True  # type: ignore[typeddict-unknown-key]
            self.cycle.message_event.set()
            return
        path, _, _ = self.url.partition(b"?")
        raw_path = path if path.startswith(b"/") else b"/"
        scope: Any = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "HEAD" if self.url and self.parser.get_method() == b"HEAD" else "-",  # whose answer has no body
            "scheme": self.scheme,
            "server": self.server,
            "client": self.client,
            "root_path": "",
            "path": decoded_path(raw_path),
            "raw_path": raw_path,
            "query_string": b"",
            "headers": self.headers,
            "state": self.app_state.copy(),
            "refusal": Refusal(problem),
        }
        pending = self.cycle
        self.cycle = RequestResponseCycle(
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
        self.pipeline.appendleft((self.cycle, self.app))
        if pending is None or pending.response_complete:
            self.on_response_complete()  # nothing is under way, so that it starts at once


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
