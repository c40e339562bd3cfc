"""A thousand connections at once, none of which behaves."""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from tests.faults.overload import probing
from tests.support.servers import wait_until
from tests.support.service import Service

CROWD = 1000
GIVEN_UP_AFTER = 3  # seconds of sending
FEW = 100  # open files of a service that nobody is connected to
HELD = 0.5  # seconds, all sent

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
LOGIN = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"login": "nobody", "password": "whatever"}'

HOSTILE = {
    "a thousand fields, unfinished": LIVE + b"ab:\r\n" * 1000,
    "98 large fields, unfinished": LIVE + (b"ab: %s\r\n" % (b"x" * 300)) * 98,
    "one byte of a body": LOGIN + b"Content-Length: 50\r\n\r\n{",
    "all of a body but one byte": LOGIN + b"Content-Length: 1048576\r\n\r\n" + b" " * 1048575,
    "a body in chunks of one byte": LOGIN + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\n \r\n" * 30_000,
    "nothing": b"",
    "100 pipelined requests": (LIVE + b"\r\n") * 100,
    "100 behind one that takes long": LOGIN + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY + (LIVE + b"\r\n") * 100,
    "large answers, unread": b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
}


@contextmanager
def many_files() -> Iterator[None]:
    """For this process, and the services that it starts meanwhile."""
    most, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def come_in_crowds(service: Service, sent: bytes) -> float:
    """The longest that /health/live took meanwhile, without what a busy machine adds."""
    live: list[float] = []
    with probing(service.port, live, service.pid):
        asyncio.run(crowd(service.port, sent))
    wait_until(lambda: len(list(Path(f"/proc/{service.pid}/fd").iterdir())) < FEW, "what a crowd has left behind")
    return max(live)


async def crowd(port: int, sent: bytes) -> None:
    await asyncio.gather(*(come(port, sent) for _ in range(CROWD)))


async def come(port: int, sent: bytes) -> None:
    loop = asyncio.get_running_loop()
    with closing(socket.socket()) as connection, suppress(OSError):
        connection.setblocking(False)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        await loop.sock_connect(connection, ("127.0.0.1", port))
        with suppress(TimeoutError):
            async with asyncio.timeout(GIVEN_UP_AFTER):
                await loop.sock_sendall(connection, sent)
        await asyncio.sleep(HELD)
