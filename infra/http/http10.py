"""Answers to HTTP/1.0, which knows no chunks (RFC 9112, 7.1): one whose length isn't known ends with the connection."""

from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Connection(Protocol):
    running: Any  # uvicorn's cycle of the request that is being answered


class WithoutChunks:
    """Around the app of a connection: uvicorn would send chunks whatever the client's version."""

    def __init__(self, app: ASGIApp, connection: Connection) -> None:
        self.app = app
        self.connection = connection

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = self.connection.running
        endless = False

        async def send_plain(message: Message) -> None:
            nonlocal endless
            if message["type"] == "http.response.start":
                headers = [header for header in message.get("headers", ()) if header[0].lower() != b"transfer-encoding"]
                endless = all(header[0].lower() != b"content-length" for header in headers)
                message = {**message, "headers": headers}
                if endless:
                    cycle.chunked_encoding = False
            elif endless:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, send_plain)
