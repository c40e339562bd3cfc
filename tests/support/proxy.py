import asyncio
import socket
import threading
from asyncio import StreamReader, StreamWriter
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any

from tests.support.servers import free_port


class Proxy:
    """Forwards a port of 127.0.0.1 to another, from a thread of its own, and breaks the wire when told to."""

    def __init__(self, target: int) -> None:
        self.target, self.port, self.accepted = target, free_port(), 0
        self.seconds, self.left, self.size, self.times, self.chunk = 0.0, float("inf"), 0, 0, 65536
        self.pipes: set[asyncio.Task[None]] = set()
        self.loop = asyncio.new_event_loop()
        self.flowing = asyncio.Event()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.resume()
        self.accept()

    def accept(self) -> None:  # again after refuse()
        self._run(self._listen())

    def refuse(self) -> None:  # live connections stay, unless cut() too
        self._run(self._cancel({self.acceptor}))

    def cut(self) -> None:
        self._run(self._cancel(self.pipes))

    def stall(self) -> None:  # keeps and takes connections, and forwards nothing until resume()
        self.loop.call_soon_threadsafe(self.flowing.clear)

    def resume(self) -> None:
        self.loop.call_soon_threadsafe(self.flowing.set)

    def hang(self) -> None:  # what is connected hears nothing more; what connects from now on is whole
        self.stall()
        self.loop.call_soon_threadsafe(self._flow_anew)

    def _flow_anew(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()

    def delay(self, seconds: float) -> None:  # of every chunk, in both directions
        self.seconds = seconds

    def truncate(self, size: int, times: int = 1) -> None:
        """So many bytes to the client, then its connection closes; so many times, the next answer is whole."""
        self.left = self.size = size
        self.times = times

    def close(self) -> None:
        self.refuse()
        self.cut()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    def _run(self, step: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(step, self.loop).result(10)

    async def _cancel(self, tasks: set[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        listener = socket.create_server(("127.0.0.1", self.port))
        listener.setblocking(False)
        self.acceptor = asyncio.create_task(self._accept(listener))

    async def _accept(self, listener: socket.socket) -> None:
        with listener:
            while True:
                client, _ = await self.loop.sock_accept(listener)
                self.accepted += 1
                pipe = asyncio.create_task(self._connect(client))
                self.pipes.add(pipe)
                pipe.add_done_callback(self.pipes.discard)

    async def _connect(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            from_server, to_server = await asyncio.open_connection("127.0.0.1", self.target)
            from_client, to_client = await asyncio.open_connection(sock=client)
            try:
                await asyncio.gather(self._pump(from_client, to_server), self._pump(from_server, to_client, back=True))
            finally:
                to_client.transport.abort()
                to_server.transport.abort()

    async def _pump(self, reader: StreamReader, writer: StreamWriter, *, back: bool = False) -> None:
        flowing = self.flowing
        with suppress(OSError):
            while chunk := await reader.read(self.chunk):
                await asyncio.sleep(self.seconds)
                await flowing.wait()
                if back and len(chunk) >= self.left:
                    writer.write(chunk[: int(self.left)])
                    self.times -= 1
                    self.left = self.size if self.times else float("inf")
                    break
                self.left -= len(chunk) if back else 0
                writer.write(chunk)
                await writer.drain()
        writer.close()
