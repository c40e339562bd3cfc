"""How bytes come in: little at once, and what is large in turns, so that no crowd of senders holds the others up."""

import asyncio
import time
from collections import deque
from typing import Protocol

from uvicorn.protocols.http.flow_control import FlowControl

SMALL = 2 * 1024  # bytes that are parsed at once: chunks of one byte each take 200 times as long as their copying
TURN = 0.01  # seconds of a turn of the loop for what is larger


class Reading(Protocol):
    def connection_made(self, transport: asyncio.Transport) -> None: ...
    def connection_lost(self, exc: Exception | None) -> None: ...
    def eof_received(self) -> bool: ...
    def data_received(self, data: bytes) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...


class Waiting(Protocol):
    def read_some(self) -> bool: ...


class Reader(asyncio.BufferedProtocol):
    """Stands before a protocol, and gives it at most as many bytes a time as the buffer holds.

    All connections read into the same: what it holds is taken out before the next one reads.
    """

    def __init__(self, protocol: Reading, buffer: memoryview) -> None:
        self.connection_made = protocol.connection_made  # type: ignore[method-assign, assignment]
        self.connection_lost = protocol.connection_lost  # type: ignore[method-assign]
        self.eof_received = protocol.eof_received  # type: ignore[method-assign]
        self.pause_writing = protocol.pause_writing  # type: ignore[method-assign]
        self.resume_writing = protocol.resume_writing  # type: ignore[method-assign]
        self.data_received = protocol.data_received
        self.buffer = buffer

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio calls it so
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self.buffer[:nbytes].tobytes())


class Flow(FlowControl):
    """uvicorn's, but nothing is read while there is something to parse."""

    blocked = False

    def block(self) -> None:
        self.blocked = True
        self.pause_reading()

    def resume_reading(self) -> None:
        if not self.blocked:
            super().resume_reading()


class Turns:
    """The connections that have something to parse, each a little in its turn, for a while in each turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.waiting: deque[Waiting] = deque()
        self.next: asyncio.Handle | None = None

    def add(self, connection: Waiting) -> None:
        self.waiting.append(connection)
        self.next = self.next or self.loop.call_soon(self.run)

    def run(self) -> None:
        end = time.perf_counter() + TURN
        try:
            while self.waiting and time.perf_counter() < end:
                connection = self.waiting.popleft()
                if connection.read_some():
                    self.waiting.append(connection)
        finally:  # a defect on one connection must not stop the others
            self.next = self.loop.call_soon(self.run) if self.waiting else None
