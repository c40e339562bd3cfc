"""Log lines: one JSON object a line on stdout, for all that logs, warns or crashes. Writing never waits for a reader."""

from infra.logs.setup import LogWriter, RequestContext, configure, dropped_lines, get_logger, request_context

__all__ = ["LogWriter", "RequestContext", "configure", "dropped_lines", "get_logger", "request_context"]
