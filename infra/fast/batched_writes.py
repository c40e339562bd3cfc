"""Answers to several clients, sent together.

Sending wakes whoever waits for it. A client on the same machine, mostly a proxy or a sidecar, has gone back to sleep by
the next answer, when each is sent as soon as it is made: then waking it takes as long as all else of the sending.
"""

import asyncio
from collections.abc import Collection

FEW = 2


class WriteBatch:
    """The last bytes of the answers that are made in one turn of the event loop, sent in the next."""

    def __init__(self, loop: asyncio.AbstractEventLoop, in_flight: Collection[object]) -> None:
        self.loop = loop
        self.in_flight = in_flight
        self.waiting: list[tuple[asyncio.Transport, bytes]] = []

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """At once while few requests are in flight: a turn more takes longer than waking few clients."""
        if len(self.in_flight) <= FEW:
            transport.write(data)
            return
        if not self.waiting:
            self.loop.call_soon(self.flush)
        self.waiting.append((transport, data))

    def flush(self) -> None:
        """Also to be called before a transport is closed that may be in the batch."""
        waiting, self.waiting = self.waiting, []
        for transport, data in waiting:
            if not transport.is_closing():
                transport.write(data)
