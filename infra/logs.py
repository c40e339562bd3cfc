"""Log lines: one JSON object a line on stdout, written by a thread of its own that nothing ever waits for."""

import atexit
import logging
import os
import select
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from queue import SimpleQueue
from types import TracebackType

from infra.log_formats import (
    ConsoleLines,
    JsonLines,
    Layout,
    PlainRecord,
    RequestContext,
    as_ecs,
    as_gcp,
    as_json,
    request_context,
)
from infra.log_safety import Redactor

__all__ = ["LogWriter", "RequestContext", "configure", "get_logger", "log_plainly", "request_context"]

# Some 15,000 access lines: seconds of full load, and little beside what the smallest container has.
QUEUE_BYTES = 8 * 1024 * 1024
ERROR_BYTES = 1024 * 1024  # kept free for ERROR and above
BATCH_BYTES = 64 * 1024  # what a Linux pipe holds
BATCH_DELAY = 0.005  # seconds; woken for every line, the thread would take the GIL from the event loop each time
EXIT_TIMEOUT = 2.0  # seconds that a collector that stands still may hold up the exit


def get_logger(type: str) -> logging.Logger:  # noqa: A002 - the name of the field
    """The logger whose lines have this type."""
    return logging.getLogger(f"berth.{type}")


def log_plainly(logger: logging.Logger, message: str, fields: dict[str, str | float | None]) -> None:
    """`logger.info(message, extra=fields)` in a third of the time, for a line whose shape is known."""
    if logger.isEnabledFor(logging.INFO):
        logger.handle(PlainRecord(logger.name, message, fields))


class LogWriter:
    """A bounded queue and the thread that writes it out. `offer` never waits, so log lines can't stop the event loop.

    A signal handler or a `__del__` may log while its own thread is in here: the lock is an RLock and SimpleQueue is
    reentrant. Nothing but arithmetic and `put` happens under the lock.
    """

    def __init__(self, fd: int, drop_line: Callable[[int], bytes]) -> None:
        self._fd = fd
        self._drop_line = drop_line
        self._queue: SimpleQueue[bytes | threading.Event] = SimpleQueue()
        self._lock = threading.RLock()
        self._pending = 0
        self.dropped = 0  # lines, since the start
        self._told = 0  # of these, in a line that says so
        threading.Thread(target=self._run, name="logs", daemon=True).start()
        atexit.register(self.flush)

    def offer(self, line: bytes, *, urgent: bool = False) -> None:
        limit = QUEUE_BYTES + (ERROR_BYTES if urgent else 0)
        with self._lock:
            if self._pending + len(line) > limit:
                self.dropped += 1
            else:
                self._pending += len(line)
                self._queue.put(line)

    def flush(self, timeout: float = EXIT_TIMEOUT) -> bool:
        """Waits until what was logged so far is written; False when that took too long."""
        done = threading.Event()
        self._queue.put(done)
        return done.wait(timeout)

    def _run(self) -> None:
        while True:
            lines, done = self._next_batch()
            written = self._write(b"".join(lines))
            with self._lock:
                self.dropped += 0 if written else len(lines)
                self._pending = 0 if self._queue.empty() else self._pending - sum(map(len, lines))
            untold = self.dropped - self._told
            if written and untold and self._write(self._drop_line(untold)):
                self._told += untold
            if done:
                done.set()

    def _next_batch(self) -> tuple[list[bytes], threading.Event | None]:
        """Lines, and the event to set when they are written, if it was that which ended them."""
        lines: list[bytes] = []
        length = 0
        item = self._queue.get()
        if isinstance(item, bytes):
            time.sleep(BATCH_DELAY)
        while isinstance(item, bytes):
            lines.append(item)
            length += len(item)
            if length >= BATCH_BYTES or self._queue.empty():
                return lines, None
            item = self._queue.get()
        return lines, item

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


class LineHandler(logging.Handler):
    def __init__(self, writer: LogWriter, formatter: logging.Formatter) -> None:
        super().__init__()
        self.writer = writer
        self.formatter: logging.Formatter = formatter

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's lock: the writer has its own, and formatting calls code of others."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.writer.offer(f"{self.formatter.format(record)}\n".encode(), urgent=record.levelno >= logging.ERROR)
        except Exception:  # noqa: BLE001 - logging never breaks what it reports on
            return


def configure(
    *,
    level: str,
    log_format: str,
    secrets: Sequence[str] = (),
    project: str | None = None,
    colour: bool = True,
    fd: int = 1,
) -> LogWriter:
    """Sends everything that logs, warns or crashes through one handler, in place of all others.

    Console lines are coloured when `colour` is true and `fd` is a terminal.
    """
    formatter = make_formatter(log_format, Redactor(secrets), project, colour=colour and os.isatty(fd))

    def drop_line(dropped: int) -> bytes:
        text = "log lines were dropped because they could not be written fast enough"
        record = logging.LogRecord("berth.system", logging.WARNING, "", 0, text, None, None)
        record.dropped = dropped
        return f"{formatter.format(record)}\n".encode()

    writer = LogWriter(fd, drop_line)
    remove_handlers()
    root = logging.getLogger()
    root.addHandler(LineHandler(writer, formatter))
    root.setLevel(level.upper())
    quieten(root.level)
    logging.raiseExceptions = False
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # in no line of ours
    logging.captureWarnings(True)
    warnings.formatwarning = one_line_warning
    sys.excepthook = report_crash
    threading.excepthook = lambda args: report_crash(args.exc_type, args.exc_value, args.exc_traceback)
    sys.unraisablehook = report_unraisable
    return writer


def dropped_lines() -> int:
    """Since the start."""
    return sum(handler.writer.dropped for handler in logging.getLogger().handlers if isinstance(handler, LineHandler))


def make_formatter(log_format: str, redactor: Redactor, project: str | None, *, colour: bool = False) -> JsonLines:
    if log_format == "console":
        return ConsoleLines(redactor, colour=colour)
    layouts: dict[str, Layout] = {"json": as_json, "gcp": partial(as_gcp, project=project), "ecs": as_ecs}
    return JsonLines(layouts[log_format], redactor)


def remove_handlers() -> None:
    """Of all loggers: `uvicorn app:app` sets up its own before it imports the app."""
    loggers = [item for item in logging.root.manager.loggerDict.values() if isinstance(item, logging.Logger)]
    for logger in [logging.getLogger(), *loggers]:
        for handler in list(logger.handlers):
            logger.removeHandler(handler)
            if isinstance(handler, LineHandler):
                handler.writer.flush()
        logger.propagate = True
        logger.disabled = False


def quieten(level: int) -> None:
    for name in ("databases", "aiomysql", "aiosqlite", "sqlalchemy", "alembic"):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))  # below, they show the arguments of queries
    logging.getLogger("asyncio").setLevel(max(level, logging.INFO))
    logging.getLogger("coredis").setLevel(logging.CRITICAL + 1)  # infra.cache says when Redis is lost and back
    logging.getLogger("uvicorn.access").disabled = True  # ours says more
    for name in ("uvicorn", "uvicorn.error", "uvicorn.asgi"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def one_line_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    return f"{category.__name__}: {message} ({filename}:{lineno})"


def report_crash(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, KeyboardInterrupt | SystemExit):
        get_logger("system").critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))


def report_unraisable(args: "sys.UnraisableHookArgs") -> None:
    error = (args.exc_type, args.exc_value, args.exc_traceback) if args.exc_value else None
    get_logger("system").error("%s %r", args.err_msg or "exception ignored in", args.object, exc_info=error)
