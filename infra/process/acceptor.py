"""Takes connections from the listener, many in a turn of the loop, and one more when no file descriptor is left."""

import asyncio
import errno
import os
import resource
import socket
from collections.abc import Callable
from functools import partial

from infra.http.connections import ConnectionLimits
from infra.http.protocol import Protocol
from infra.http.reading import Reader
from infra.logs import get_logger

READ_AT_ONCE = 8 * 1024  # bytes of a connection; uvloop by itself reads 256 KB
AT_ONCE = 100  # of a turn: uvloop's own server takes one, so that those of a crowd wait for seconds
RESERVED = 8  # file descriptors for whoever asks for /health when the table is full
PAUSE = 0.1  # seconds until the next try when not even these are left
NONE_LEFT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = get_logger("system")


class Acceptor:
    """Stands where uvicorn keeps asyncio's servers: it has their close() and wait_closed()."""

    def __init__(self, listener: socket.socket, backlog: int, make: Callable[[], Protocol], limits: ConnectionLimits):
        self.listener = listener
        self.make = make
        self.limits = limits
        self.loop = asyncio.get_running_loop()
        self.connecting: set[asyncio.Task[object]] = set()
        self.buffer = memoryview(bytearray(READ_AT_ONCE))
        self.told = False
        self.reserve: list[int] = []
        self.fill_reserve()
        listener.setblocking(False)
        listener.listen(backlog)
        self.loop.add_reader(listener, self.accept_waiting)

    def accept_waiting(self) -> None:
        for _ in range(AT_ONCE):
            try:
                last = len(self.reserve) < RESERVED and not self.fill_reserve()
                connection = self.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in NONE_LEFT:
                    raise
                self.wait_for_room()
                return
            self.connect(connection, last or len(self.reserve) < RESERVED)

    def accept(self) -> socket.socket:
        try:
            return self.listener.accept()[0]
        except OSError as error:
            if error.errno not in NONE_LEFT or not self.reserve:
                raise
            self.tell()
            os.close(self.reserve.pop())
            return self.listener.accept()[0]

    def wait_for_room(self) -> None:
        """Until the place of an extra connection is free, which is in the next turn, or of anything else."""
        if not self.limits.displace():
            self.loop.remove_reader(self.listener)
            self.loop.call_later(PAUSE, self.go_on)

    def go_on(self) -> None:
        if self.listener.fileno() >= 0:
            self.loop.add_reader(self.listener, self.accept_waiting)

    def connect(self, connection: socket.socket, last: bool) -> None:
        protocol = self.make()
        protocol.last = last
        reader = partial(Reader, protocol, self.buffer)
        task = self.loop.create_task(self.loop.connect_accepted_socket(reader, connection))
        self.connecting.add(task)
        task.add_done_callback(self.connected)

    def connected(self, task: asyncio.Task[object]) -> None:
        self.connecting.discard(task)
        if not task.cancelled() and (error := task.exception()):  # it has gone already
            log.debug("a connection could not be taken: %s", error)

    def fill_reserve(self) -> bool:
        """Whether it is full."""
        try:
            while len(self.reserve) < RESERVED:
                self.reserve.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            return False
        return True

    def tell(self) -> None:
        if not self.told:
            self.told = True
            most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            log.error("no file descriptor is left (ulimit -n): only /health is answered", extra={"limit": most})

    def close(self) -> None:
        self.loop.remove_reader(self.listener)
        self.listener.close()
        while self.reserve:
            os.close(self.reserve.pop())

    async def wait_closed(self) -> None:
        """Nothing to wait for."""
