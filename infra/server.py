"""uvicorn, run from code: what it answers before the app can, signals, drain, exit status."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from infra.logs import LogWriter, get_logger
from infra.problems import Problem, Unavailable, problem_response
from infra.request_limits import linger
from infra.requests import Frame
from infra.startup import StartupError
from settings import Settings

MAX_HEADER_BYTES = 64 * 1024
MAX_PIPELINED = 100  # requests that wait for their turn on one connection: each takes far more memory than bytes
KEEP_ALIVE = 75  # seconds; longer than the idle time-outs of the usual proxies (60 s), so that they close first
BACKLOG = 2048
BACKLOG_LINGER = 0.02  # seconds to accept whoever has connected already, before the listener closes
IDLE_LINGER = 0.25  # seconds in which a request that is already on its way may still arrive on an open connection
CANCEL_TIMEOUT = 0.5  # seconds for a cancelled request to write its 503

log = get_logger("system")


HEADERS_TOO_LARGE = Problem(431, f"the headers may have at most {MAX_HEADER_BYTES} bytes")


class Refusal:
    """The answer to what isn't a request: a problem document, then the client may finish sending."""

    def __init__(self, problem: Problem) -> None:
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
    header_bytes = 0  # of headers or trailers that aren't complete; 0 between requests and within a body
    in_body = False
    refused = False
    refusal: Problem | None = None  # why the parser was stopped, when not by what it parses
    header_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.url, self.headers = b"", []
        self.header_timer = self.loop.call_later(self.settings.request_timeout, self.on_header_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self.forget_header_timer()
        super().connection_lost(exc)

    def eof_received(self) -> bool:  # type: ignore[override]
        """A client that has asked may close its side and still read: the connection stays until the last answer."""
        if self.cycle is None or self.cycle.response_complete or self.in_body:
            return False
        self.cycle.keep_alive = False
        return True

    def data_received(self, data: bytes) -> None:
        if self.refused:
            return
        self._unset_keepalive_if_required()
        self.header_bytes += len(data)
        try:
            self.feed(data)
            if self.header_bytes > MAX_HEADER_BYTES:
                self.refuse(HEADERS_TOO_LARGE)
        except httptools.HttpParserError:
            self.refuse(self.refusal or Problem(400, "this is not valid HTTP/1.1"))
        if self.header_bytes and not (self.in_body or self.refused or self.header_timer):
            self.header_timer = self.loop.call_later(self.settings.request_timeout, self.on_header_timeout)

    def feed(self, data: bytes) -> None:
        """There is nothing to upgrade to: a request that asks for it is answered as what it is, HTTP/1.1."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self.in_body:  # which this parser would take for the other protocol, or for the next request
                self.parser = parser_of_body(self, self.headers)
                self.parser.feed_data(data[upgrade.args[0] :])
            else:
                self.refused = True  # the answer closes the connection

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.header_bytes = max(self.header_bytes, 1)

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEADER_BYTES:
            self.refusal = HEADERS_TOO_LARGE
        if len(self.pipeline) >= MAX_PIPELINED:
            self.refusal = Unavailable("too many requests at once on one connection", retry_after=1)
        if self.refusal:
            raise ValueError  # stops the parser: nothing of the request reaches the app
        super().on_headers_complete()
        self.header_bytes, self.in_body = 0, True
        self.forget_header_timer()
        if self.app_state["stopping"].is_set() or self.parser.should_upgrade():
            self.cycle.keep_alive = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.in_body:  # trailers mean nothing here
            super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self.header_bytes = 0

    def on_message_complete(self) -> None:
        if not (self.parser.should_upgrade() and framing(self.headers)):  # else its body is still to come
            super().on_message_complete()
            self.header_bytes, self.in_body = 0, False

    def on_body_complete(self) -> None:
        """The end of a body after a declined upgrade."""
        super().on_message_complete()
        self.in_body, self.refused = False, True

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

    def refuse(self, problem: Problem) -> None:
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


class Server(uvicorn.Server):
    """Serves from the end of the lifespan's start until a signal, then drains."""

    def __init__(self, app: ASGIApp, settings: Settings, state: dict[str, Any]) -> None:
        protocol = type("BerthProtocol", (Protocol,), {"settings": settings})
        config = uvicorn.Config(
            app,
            http=protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE,
            backlog=BACKLOG,
        )
        config.load()
        super().__init__(config)
        self.settings = settings
        self.lifespan = config.lifespan_class(config)
        self.lifespan.state = state
        self.stopping: asyncio.Event = state["stopping"]

    def stop(self) -> None:
        self.should_exit = True
        self.stopping.set()
        connections: Iterable[Any] = self.server_state.connections
        for connection in connections:
            if connection.cycle:
                connection.cycle.keep_alive = False

    async def drain(self) -> None:
        """SHUTDOWN_DELAY, then no new connections, then SHUTDOWN_TIMEOUT for the requests in flight."""
        await asyncio.sleep(max(self.settings.shutdown_delay, BACKLOG_LINGER))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.shutdown_timeout
        for server in self.servers:
            server.close()
        await asyncio.sleep(min(IDLE_LINGER, self.settings.shutdown_timeout))
        for connection in list(self.server_state.connections):
            connection.shutdown()
        while (self.server_state.connections or self.server_state.tasks) and loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        if self.server_state.tasks:
            log.warning(
                "requests cut off at the end of SHUTDOWN_TIMEOUT", extra={"count": len(self.server_state.tasks)}
            )
            for task in self.server_state.tasks:
                task.cancel()
            await asyncio.wait(self.server_state.tasks, timeout=CANCEL_TIMEOUT)


async def serve(app: Starlette, settings: Settings, writer: LogWriter) -> None:
    """Returns when a signal has ended it, whether serving or still starting. Raises StartupError."""
    received: list[int] = []
    server: Server | None = None
    main = asyncio.current_task()

    def on_signal(number: int) -> None:
        received.append(number)
        if len(received) > 1:
            writer.flush(timeout=CANCEL_TIMEOUT)
            os._exit(128 + number)
        log.info("stopping", extra={"signal": signal.Signals(number).name})
        if server:
            server.stop()
        elif main:
            main.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    try:
        with bind(settings) as listener:
            async with app.router.lifespan_context(app) as state:
                server = Server(app, settings, dict(state or {}))
                await server.startup([listener])
                log.info("serving", extra={"host": settings.host, "port": listener.getsockname()[1]})
                await server.main_loop()
                await server.drain()
    except asyncio.CancelledError:
        if not received:
            raise
    log.info("stopped")


def bind(settings: Settings) -> socket.socket:
    """Bound before anything opens, so that a taken port is told at once; nobody can connect before it listens."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a client that never reads an answer keeps no connection open
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(settings.request_timeout * 1000))
        listener.bind(address)
    except OSError as error:
        asked_for = f"HOST {settings.host}, PORT {settings.port}"
        raise StartupError(os.EX_UNAVAILABLE, f"can't listen on {asked_for}: {error}") from None
    return listener
