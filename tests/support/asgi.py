"""Small ASGI applications on a real socket, served as the service is."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from starlette.types import Receive, Scope, Send

from infra.metrics.counters import RequestMetrics
from infra.process.server import Server
from settings import load

Part = dict[str, Any]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def start(*headers: tuple[bytes, bytes], status: int = 200) -> Part:
    return {"type": "http.response.start", "status": status, "headers": list(headers)}


def body(content: bytes, *, more_body: bool = False) -> Part:
    return {"type": "http.response.body", "body": content, "more_body": more_body}


def sending(*parts: Part) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        for part in parts:
            await send(dict(part))

    return app


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[tuple[Server, tuple[str, int]]]:
    """The app's server, and where it listens."""
    settings = load({"SYS_ENV": "test", "SECRET_KEY": "k" * 32})
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(app, settings, {"stopping": asyncio.Event(), "metrics": RequestMetrics()})
        await server.startup([listener])
        try:
            yield server, listener.getsockname()
        finally:
            server.force_exit = True  # or it would wait for what a broken connection still has to answer
            await server.shutdown()


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the app."""
    async with serving(app) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        try:
            yield reader, writer
        finally:
            writer.close()


def answer_to(sent: bytes, app: Any) -> bytes:
    """All that comes back until the server closes the connection, or is told to with the last request."""

    async def exchange() -> bytes:
        async with served(app) as (reader, writer), asyncio.timeout(10):
            writer.write(sent.replace(b"Host: x", b"Host: x\r\nConnection: close"))
            return await reader.read()

    return asyncio.run(exchange())


def fields(answer: bytes) -> dict[bytes, bytes]:
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
