"""POST to the sink, over a connection of its own: a dozen lines of HTTP/1.1 that can be cancelled, unlike a thread."""

import asyncio
import re
import ssl
from urllib.parse import urlsplit

from settings import Settings

TIMEOUT = 10  # seconds for all of one request
INFORMATIONAL = set(range(100, 200)) - {101}  # come before the answer, any number of them (RFC 9110, 15.2)

STATUS_LINE = rb"HTTP/1\.[01] ([1-5][0-9]{2})[ \r]"


class Sink:
    """Where K_SINK leads."""

    def __init__(self, settings: Settings) -> None:
        parts = urlsplit(settings.k_sink or "")
        self.host, self.tls = parts.hostname, ssl.create_default_context() if parts.scheme == "https" else None
        self.port = parts.port or (443 if self.tls else 80)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        host = parts.netloc.rpartition("@")[2]
        agent = f"{settings.name}/{settings.version}"
        self.head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\nConnection: close\r\n"

    async def post(self, content_type: str, body: bytes) -> int:
        """The status of the answer. Raises OSError (TimeoutError is one) or ValueError when there is none."""
        head = f"{self.head}Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n\r\n"
        async with asyncio.timeout(TIMEOUT):
            reader, writer = await asyncio.open_connection(self.host, self.port, ssl=self.tls)
            try:
                writer.write(head.encode() + body)
                while (status := await read_status(reader)) in INFORMATIONAL:
                    while (await reader.readline()).strip():  # its headers
                        pass
            finally:
                writer.transport.abort()
        return status


async def read_status(reader: asyncio.StreamReader) -> int:
    status_line = re.match(STATUS_LINE, await reader.readline())
    if not status_line:
        raise ValueError("the answer is not HTTP/1.1")
    return int(status_line[1])
