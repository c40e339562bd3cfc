"""A transport that sends an answer's head and body in one write, and the answers of one turn of the loop together.

Sending wakes whoever waits for it. A client on the same machine, mostly a proxy or a sidecar, has gone back to sleep by
the next answer when each is sent as soon as it is made: then waking it takes as long as all else of the sending.
"""

import asyncio
from collections.abc import Collection
from typing import Any

FEW = 2  # requests in flight: for them a turn more takes longer than waking their clients
LARGE = 16 * 1024  # bytes: keeping them costs more than another write


class Batch:
    """The transports of one server whose answers are sent in the next turn of the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, in_flight: Collection[object]) -> None:
        self.loop = loop
        self.in_flight = in_flight
        self.waiting: list[BatchedTransport] = []

    def wrap(self, transport: asyncio.Transport) -> asyncio.Transport:
        """The same transport, but what uvicorn writes for an answer waits until the next turn of the loop at most."""
        return BatchedTransport(transport, self)

    def add(self, transport: "BatchedTransport") -> None:
        if not self.waiting:
            self.loop.call_soon(self.flush)
        self.waiting.append(transport)

    def flush(self) -> None:
        transports, self.waiting = self.waiting, []
        for transport in transports:
            transport.flush()


class BatchedTransport(asyncio.Transport):
    """Holds an answer's head, then with the first part of its body; whatever else is written goes out at once."""

    def __init__(self, transport: asyncio.Transport, batch: Batch) -> None:
        self.transport = transport
        self.batch = batch
        self.held = b""
        self.whole = False  # the body's first part is held, too

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self.held and len(data) > LARGE:
            self.flush()
            self.transport.write(data)  # as it is: of what many don't take, all have the same in memory
        elif self.held:
            self.held += data
            if self.whole or len(self.batch.in_flight) <= FEW:
                self.flush()
            else:
                self.whole = True
        elif data[:9] == b"HTTP/1.1 ":
            self.held = bytes(data)
            self.batch.add(self)
        else:
            self.transport.write(data)

    def flush(self) -> None:
        held, self.held, self.whole = self.held, b"", False
        if held and not self.transport.is_closing():
            self.transport.write(held)

    def close(self) -> None:
        self.flush()
        self.transport.close()

    def write_eof(self) -> None:
        self.flush()
        self.transport.write_eof()

    def abort(self) -> None:
        self.held = b""
        self.transport.abort()

    def get_write_buffer_size(self) -> int:
        return len(self.held) + self.transport.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.transport.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.transport.set_write_buffer_limits(high, low)

    def can_write_eof(self) -> bool:
        return self.transport.can_write_eof()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def is_reading(self) -> bool:
        return self.transport.is_reading()

    def pause_reading(self) -> None:
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.transport.resume_reading()

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self.transport.get_protocol()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self.transport.set_protocol(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.transport.get_extra_info(name, default)
