"""uvicorn, run from code: listener, signals, drain."""

import asyncio
import contextlib
import errno
import os
import select
import signal
import socket
import struct
from collections.abc import Iterable
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from infra import fast
from infra.base.errors import StartupError
from infra.fast import batched_writes
from infra.http.connections import ConnectionLimits
from infra.http.protocol import Protocol
from infra.http.reading import Turns
from infra.logs import LogWriter, get_logger
from infra.process.acceptor import Acceptor
from settings import Settings

BACKLOG = 2048
SEND_BUFFER = 64 * 1024  # bytes of an answer that the kernel takes, which keeps up to 4 MB of it by itself (tcp(7))
SO_ATTACH_FILTER = 26  # <asm-generic/socket.h>
BACKLOG_LINGER = 0.02  # seconds for whoever is just connecting
IDLE_LINGER = 0.25  # seconds in which a request that is already on its way may still arrive on an open connection
CANCEL_TIMEOUT = 0.5  # seconds for a cancelled request to write its 503

log = get_logger("system")


class Server(uvicorn.Server):
    """Serves from the end of the lifespan's start until a signal, then drains."""

    def __init__(self, app: ASGIApp, settings: Settings, state: dict[str, Any]) -> None:
        config = uvicorn.Config(
            app,
            http=Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
        )
        config.load()
        super().__init__(config)
        self.settings = settings
        self.lifespan = config.lifespan_class(config)
        self.lifespan.state = state
        self.stopping: asyncio.Event = state["stopping"]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """In place of uvicorn's, which leaves the taking of connections to the loop."""
        config, state, loop = self.config, self.server_state, asyncio.get_running_loop()
        limits, turns = ConnectionLimits(self.settings), Turns(loop)
        wrap = batched_writes.Batch(loop, state.tasks).wrap if fast.enabled("batched_writes") else None

        def make() -> Protocol:
            return Protocol(self.settings, limits, turns, wrap, config, state, self.lifespan.state, loop)

        acceptors: Any = [Acceptor(listener, BACKLOG, make, limits) for listener in sockets or []]
        self.servers = acceptors
        self.started = True

    def stop(self) -> None:
        self.should_exit = True
        self.stopping.set()
        connections: Iterable[Any] = self.server_state.connections
        for connection in connections:
            if connection.cycle:
                connection.cycle.keep_alive = False

    async def drain(self, listener: socket.socket) -> None:
        """SHUTDOWN_DELAY, then no new connections, then SHUTDOWN_TIMEOUT for the requests in flight."""
        await asyncio.sleep(max(self.settings.shutdown_delay, BACKLOG_LINGER))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.shutdown_timeout
        take_no_more(listener)
        pending = select.poll()
        pending.register(listener, select.POLLIN)
        while pending.poll(0) and loop.time() < deadline:  # noqa: ASYNC110 - the loop accepts one at a time
            await asyncio.sleep(0)
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


def take_no_more(listener: socket.socket) -> None:
    """Drops new handshakes, so that closing the listener resets nobody who waits to be accepted (Linux; socket(7))."""
    # Closing at once reset clients in 5 of 6 stops under load, accepting until nobody waits in 2 of 6, this in none.
    import ctypes  # noqa: PLC0415 - only at the end

    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # one instruction of BPF: return 0
    with contextlib.suppress(OSError):  # a kernel without it, like gVisor
        listener.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(drop_all)))


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
                log.info("serving", extra=where(settings, listener.getsockname()[1]))
                await server.main_loop()
                await server.drain(listener)
    except asyncio.CancelledError:
        if not received:
            raise
    log.info("stopped")


def where(settings: Settings, port: int) -> dict[str, object]:
    """For the log line; on somebody's own machine with the address to click."""
    served = {"host": settings.host, "port": port}
    host = "localhost" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared
    url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    return served | ({"url": url} if settings.sys_env == "local" else {})


def bind(settings: Settings) -> socket.socket:
    """Bound before anything opens, so that a taken port is told at once; nobody can connect before it listens."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)  # accepted connections inherit it
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # a client that never reads an answer keeps no connection open
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(settings.request_timeout * 1000))
        listener.bind(address)
    except OSError as error:
        asked_for = f"HOST {settings.host}, PORT {settings.port}"
        taken = error.errno == errno.EADDRINUSE and settings.sys_env == "local"
        advice = f"; take another: PORT={settings.port % 65535 + 1} make run (or make dev)" if taken else ""
        raise StartupError(os.EX_UNAVAILABLE, f"can't listen on {asked_for}: {error}{advice}") from None
    return listener
