"""Log lines: one JSON object a line on stdout, for all that logs, warns or crashes."""

import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from functools import partial
from types import TracebackType

from infra.logs.formats import (
    OWN_LOGGERS,
    ConsoleLines,
    JsonLines,
    Layout,
    as_ecs,
    as_gcp,
    as_json,
)
from infra.logs.safety import Redactor
from infra.logs.writer import LogWriter

AUDIT = f"{OWN_LOGGERS}audit"  # whose lines say who did what, and must not be lost


def get_logger(type: str) -> logging.Logger:  # noqa: A002 - the name of the field
    """The logger whose lines have this type."""
    return logging.getLogger(OWN_LOGGERS + type)


class LineHandler(logging.Handler):
    def __init__(self, writer: LogWriter, formatter: logging.Formatter) -> None:
        super().__init__()
        self.writer = writer
        self.formatter: logging.Formatter = formatter

    def handle(self, record: logging.LogRecord) -> bool:
        """Without the handler's lock: the writer has its own, and formatting calls code of others."""
        try:
            room = "error" if record.levelno >= logging.ERROR else "audit" if record.name == AUDIT else None
            self.writer.offer(f"{self.formatter.format(record)}\n".encode(), room)
        except Exception:  # noqa: BLE001 - logging never breaks what it reports on
            return False
        return True


def configure(
    *,
    service: str,
    level: str,
    log_format: str,
    secrets: Sequence[str] = (),
    token_prefixes: Sequence[str] = (),
    project: str | None = None,
    colour: bool = True,
    fd: int = 1,
) -> LogWriter:
    """Sends everything that logs, warns or crashes through one handler, in place of all others.

    Console lines are coloured when `colour` is true and `fd` is a terminal.
    """
    formatter = make_formatter(
        service, log_format, Redactor(secrets, token_prefixes), project, colour=colour and os.isatty(fd)
    )

    writer = LogWriter(fd, formatter)
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


def make_formatter(
    service: str, log_format: str, redactor: Redactor, project: str | None, *, colour: bool = False
) -> JsonLines:
    if log_format == "console":
        return ConsoleLines(service, redactor, colour=colour)
    layouts: dict[str, Layout] = {
        "json": as_json,
        "gcp": partial(as_gcp, project=project),
        "ecs": partial(as_ecs, service=service),
    }
    return JsonLines(service, layouts[log_format], redactor)


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
    logging.getLogger("coredis").setLevel(logging.CRITICAL + 1)  # infra.redis says when Redis is lost and back
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
