"""uvicorn's HTTP/1.1 with limits of our own: what it answers before the app can is a problem document, too."""

import asyncio
from collections.abc import Callable
from typing import Any

import httptools

from infra.base.errors import Unavailable
from infra.http.connections import EXTRA_SECONDS, ConnectionLimits
from infra.http.fields import members
from infra.http.heads import VERSIONS, check_codings, check_hosts, target_of, unknown_version
from infra.http.http10 import WithoutChunks
from infra.http.paced_protocol import MAX_BODY_WAITING, MAX_PIPELINED, TOO_MANY_PIPELINED, PacedProtocol
from infra.http.problems import Problem
from infra.http.reading import Flow, Turns
from infra.http.refused_requests import cycle_of_refusal, kept_headers
from infra.http.upgrades import framing, parser_of_body
from settings import Settings

MAX_HEADER_BYTES = 32 * 1024
UNCOUNTED = 64  # bytes at most of a method, a version and the ends of lines
MAX_HEADER_FIELDS = 100  # each takes far more memory than it has bytes
MAX_UNSENT = 16 * 1024  # bytes of answers that the kernel doesn't take, after which no more are made
MANY_PARTS, SMALL_PART = 4096, 16  # so many chunks of a body, of fewer bytes on the average, are no way to send it
WATCHED = frozenset({b"host", b"transfer-encoding", b"expect"})  # what a request's head is checked for
HEADERS_TOO_LARGE = Problem(
    431, f"the headers may have at most {MAX_HEADER_FIELDS} fields and {MAX_HEADER_BYTES} bytes"
)
TOO_MANY_CONNECTIONS = Unavailable("too many connections", retry_after=1)


class Protocol(PacedProtocol):
    """Adds to uvicorn's HTTP/1.1 a limit and a time-out for headers, and problem documents for what isn't a request."""

    received = 0  # bytes at once, which may be of several requests
    at_most = 0  # bytes that these headers can have: all that was received with any of them
    version = ""  # of HTTP, once the request line is known to say it
    data = unread = b""  # what was received, after what came before of a request line
    begun = 0  # requests in that
    parts = body_bytes = 0  # of the body that is being read
    refusal: Problem | Unavailable | None = None  # why the parser was stopped, when not by what it parses
    last = False  # it has one of the last file descriptors

    def __init__(
        self,
        settings: Settings,
        limits: ConnectionLimits,
        turns: Turns,
        wrap: Callable[[asyncio.Transport], asyncio.Transport] | None,
        *options: Any,
    ) -> None:
        super().__init__(settings, turns, *options)
        self.limits = limits
        self.wrap = wrap

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        if self.wrap:
            transport = self.wrap(transport)
        transport.set_write_buffer_limits(MAX_UNSENT)
        super().connection_made(transport)
        self.flow = Flow(transport)
        self.url, self.headers = b"", []
        self.watched: list[tuple[bytes, bytes]] = []
        self.known = [(b"", b"")]  # of a request before, whose Host names one and that had no other
        self.extra = not self.limits.enter(self, self.client[0] if self.client else None, last=self.last)
        self.set_header_timer(EXTRA_SECONDS if self.extra else self.settings.request_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.leave(self)
        self.waiting = b""
        self.cancel_timers()
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
            self.set_header_timer(self.settings.request_timeout)

    def decline(self, rest: bytes) -> None:
        """There is nothing to upgrade to: a request that asks for it is answered as what it is, HTTP/1.1."""
        if self.in_body:  # which this parser would take for the other protocol, or for the next request
            self.parser = parser_of_body(self.scope["headers"], self.on_body, self.on_body_complete)
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

    def is_idle(self) -> bool:
        """Nothing is asked: no request has come whole, or all are answered."""
        return self.cycle is None or self.cycle.response_complete

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

    def refuse(self, problem: Problem | Unavailable) -> None:
        """Answers after the requests before it, or in place of the one whose body has just broken off."""
        self.refused = True
        self.forget_header_timer()
        self.headers = kept_headers(self.headers, self.data)
        if self.transport.is_closing():
            return
        if self.in_body:
            self.cycle.scope["malformed_body"] = True  # type: ignore[typeddict-unknown-key]
            self.cycle.message_event.set()
            return
        method = "HEAD" if self.url and self.parser.get_method() == b"HEAD" else "-"  # whose answer has no body
        pending = self.cycle
        self.cycle = cycle_of_refusal(self, method, problem)
        self.pipeline.appendleft((self.cycle, self.app))
        if pending is None or pending.response_complete:
            self.on_response_complete()  # nothing is under way, so that it starts at once
