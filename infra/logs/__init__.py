"""Log lines: one JSON object a line on stdout, for all that logs, warns or crashes. Writing waits for no reader."""

from infra.logs.context import RequestContext, name_user, request_context
from infra.logs.setup import configure, dropped_lines, get_logger
from infra.logs.writer import LogWriter

__all__ = [
    "LogWriter",
    "RequestContext",
    "configure",
    "dropped_lines",
    "get_logger",
    "name_user",
    "request_context",
]
