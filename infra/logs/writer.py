"""Takes log lines to stdout, and waits for nobody who reads it."""

import atexit
import logging
import os
import select
import stat
import threading
from collections import deque
from contextlib import suppress
from queue import Empty, SimpleQueue

# Some 15,000 access lines: seconds of full load, and little beside what the smallest container has.
QUEUE_BYTES = 8 * 1024 * 1024
# More, for each kind of line that must not be lost to a flood of others; such lines go first when others wait.
ROOMS = {"error": 1024 * 1024, "audit": 2 * 1024 * 1024}
CHUNK_BYTES = 16 * 1024  # written by whoever brings the last of them
BATCH_BYTES = 64 * 1024  # what a Linux pipe holds
PAUSE = 0.005  # seconds in which the thread lets more gather, for whenever it runs the event loop can't
LOAD_PAUSE = 0.1  # seconds, while chunks are written without it
EXIT_TIMEOUT = 2.0  # seconds that a collector that stands still may hold up the exit


class LogWriter:
    """A bounded queue that `offer` never waits for, so log lines can't stop the event loop.

    Under load, what has gathered is written by whoever offers a line, as far as stdout is a pipe and has room. All else
    is left to a thread. A signal handler or a `__del__` may log while its own thread is in here: the lock is an RLock,
    SimpleQueue is reentrant, and lines are taken out only by whoever has set `_writing`.
    """

    def __init__(self, fd: int, formatter: logging.Formatter) -> None:
        self._fd = fd
        self._pipe = never_waiting(fd)
        self._formatter = formatter
        self._lines: deque[bytes] = deque()
        self._size = 0  # of these, while they are not yet written
        self._rest = b""  # of a line that has gone out in part
        self._first: deque[tuple[str, bytes]] = deque()  # with the names of their rooms
        self._held = dict.fromkeys(ROOMS, 0)  # bytes of each room
        self._writing = False
        self._lock = threading.RLock()
        self._wishes: SimpleQueue[threading.Event | None] = SimpleQueue()  # that the thread write, and say when it has
        self._awake = False  # it will look for lines
        self._chunks = 0  # written without it
        self.dropped = 0  # lines, since the start
        self._told = 0  # of these, in a line that says so
        threading.Thread(target=self._run, name="logs", daemon=True).start()
        atexit.register(self.flush)

    def offer(self, line: bytes, room: str | None = None) -> None:
        """`room`: one of ROOMS, for what must not be lost to a flood of other lines."""
        size = len(line)
        with self._lock:
            if room and self._size > BATCH_BYTES and self._held[room] + size <= ROOMS[room]:
                self._held[room] += size
                self._first.append((room, line))
            elif self._size + size <= QUEUE_BYTES:
                self._size += size
                self._lines.append(line)
            else:
                self.dropped += 1
                return
            if self._size >= CHUNK_BYTES and self._pipe is not None and not self._writing and not self._first:
                self._write_chunk(self._pipe)
            if (self._lines or self._first) and not self._awake:
                self._awake = True
                self._wishes.put(None)

    def flush(self, timeout: float = EXIT_TIMEOUT) -> bool:
        """Waits until what was logged so far is written; False when that took too long."""
        done = threading.Event()
        self._wishes.put(done)
        return done.wait(timeout)

    def _write_chunk(self, pipe: int) -> None:
        """Leaves to the thread what the pipe has no room for; `_writing` is true until that is written."""
        self._writing = True
        lines, self._lines = self._lines, deque()
        data, written = b"".join(lines), 0
        with suppress(OSError):
            written = os.write(pipe, data)
        self._size -= written
        self._chunks += 1
        self._writing = written < len(data)
        if self._writing:
            while written >= len(lines[0]):
                written -= len(lines.popleft())
            self._rest = lines.popleft()[written:]
            self._lines.extendleft(reversed(lines))
            self._wishes.put(None)

    def _run(self) -> None:
        while True:
            done = self._next_wish()
            self._write_what_waits()
            if done:
                done.set()

    def _next_wish(self) -> threading.Event | None:
        wish, pause, chunks = self._wishes.get(), PAUSE, -1
        while not (wish or self._writing or chunks == self._chunks):
            chunks = self._chunks
            try:
                return self._wishes.get(timeout=pause)
            except Empty:
                pause = LOAD_PAUSE
        return wish

    def _write_what_waits(self) -> None:
        """But for what comes meanwhile: while that is much the thread goes on, else chunks may be written again."""
        with self._lock:
            self._writing = True
            waiting = len(self._first) + len(self._lines) + bool(self._rest)
        while waiting > 0:
            lines, size = self._next_batch()
            waiting -= len(lines)
            written = self._write(b"".join(lines))
            with self._lock:
                self._size -= size
                self.dropped += 0 if written else len(lines)
            untold = self.dropped - self._told
            if written and untold and self._write(self._drop_line(untold)):
                self._told += untold
        with self._lock:
            self._writing = self._size >= CHUNK_BYTES
            self._awake = bool(self._lines or self._first)
            if self._awake:
                self._wishes.put(None)

    def _next_batch(self) -> tuple[list[bytes], int]:
        """The lines, and how many of their bytes are in no room."""
        lines = [self._rest] if self._rest else []
        size, self._rest = len(self._rest), b""
        first = 0
        with self._lock:
            while self._first and first < BATCH_BYTES:
                room, line = self._first.popleft()
                self._held[room] -= len(line)
                lines.append(line)
                first += len(line)
        while self._lines and first + size < BATCH_BYTES:
            line = self._lines.popleft()
            lines.append(line)
            size += len(line)
        return lines, size

    def _drop_line(self, dropped: int) -> bytes:
        text = "log lines were dropped because they could not be written fast enough"
        record = logging.LogRecord("service.system", logging.WARNING, "", 0, text, None, None)
        record.dropped = dropped
        return f"{self._formatter.format(record)}\n".encode()

    def _write(self, data: bytes) -> bool:
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:  # whoever gave us stdout made it non-blocking
                select.select([], [self._fd], [])
            except OSError:  # nobody reads any more, or the disk is full
                return False
        return True


def never_waiting(fd: int) -> int | None:
    """The pipe opened once more, non-blocking: on `fd` itself whoever else has it would find it so, too."""
    try:
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
    except OSError:  # closed, made by another user, or no Linux
        pass
    return None
