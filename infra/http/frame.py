"""Every request's frame: trace context in and out, headers of the answer, the last net for errors, the access line,
the metrics."""

import asyncio
import logging
import re
import time
import traceback
from collections.abc import Awaitable, Mapping
from operator import itemgetter
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from infra.base.errors import Unavailable
from infra.base.ids import new_id, random_bytes
from infra.base.times import now_ms
from infra.http.cors import Cors
from infra.http.fields import OWS, repeated_names
from infra.http.paths import decoded_path
from infra.http.problems import Problem, problem_response
from infra.logs import RequestContext, get_logger, request_context
from infra.logs.formats import AccessLine, AccessRecord, rfc3339
from infra.metrics.counters import RequestMetrics

# W3C Trace Context, section 3.2: version ff and all-zero ids are invalid, later versions may append fields.
TRACEPARENT = r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(-.*)?"
VERSION_00_LENGTH = 55
CLOUD_TRACE = r"(?i)(?!0{32})([0-9a-f]{32})(?:/[0-9]{1,20})?(?:;o=([01]))?"
REQUEST_ID = r"[A-Za-z0-9._:/+=-]{1,128}"

SECURITY_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; base-uri 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
]
# RFC 6797: a year without plain HTTP; over plain HTTP it must not be sent (section 7.2)
SECURITY_HEADERS_OF_HTTPS = [*SECURITY_HEADERS, (b"strict-transport-security", b"max-age=31536000")]
SECURITY_HEADER_NAMES = frozenset(name for name, _ in SECURITY_HEADERS_OF_HTTPS)
# A proxy may join the lines of a field that comes twice, or choose one of them: then it says nothing for sure.
SINGLE_HEADERS = {b"traceparent", b"x-cloud-trace-context", b"x-request-id", b"origin"}

access_log = get_logger("access")
log = get_logger("system")


class Frame:
    """Pure ASGI, outermost but for the proxy headers: whatever happens inside, one answer and one line."""

    def __init__(self, app: ASGIApp, *, debug: bool, cors: Cors | None = None) -> None:
        self.app = app
        self.debug = debug
        self.cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        metrics: RequestMetrics = scope["state"]["metrics"]
        if b"%" in scope.get("raw_path", b"%"):
            scope["path"] = decoded_path(scope.get("raw_path") or quote(scope["path"]).encode())
        exchange = Exchange(scope, receive, send, self.cors)
        token = request_context.set(exchange.context)
        metrics.in_flight += 1
        try:
            app = self.app
            if "refusal" in scope:
                app = scope["refusal"]
            elif self.cors:
                app = self.cors.preflight(scope) or app
            await app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:  # the server's last word at the end of SHUTDOWN_TIMEOUT
            await exchange.answer(Unavailable("the service is stopping"))
        except Exception as error:
            log.exception("unhandled exception")
            detail = (
                "".join(traceback.format_exception(error)) if self.debug else "the server failed; it has been logged"
            )
            await exchange.answer(Problem(500, detail))
        finally:
            metrics.in_flight -= 1
            exchange.write_line(metrics)
            request_context.reset(token)


class Exchange:
    """One request and its answer, as they pass by."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, cors: Cors | None) -> None:
        self.scope = scope
        self._receive = receive
        self._send = send
        self.cors = cors
        self.headers = dict(reversed(scope["headers"]))  # of a name given twice the first counts, as in Starlette
        if len(self.headers) < len(scope["headers"]):
            for name in SINGLE_HEADERS & repeated_names(scope["headers"]):
                del self.headers[name]
        self.context = context_of(self.headers)
        self.started = time.perf_counter()
        self.request_bytes = 0
        self.response_bytes = 0

    async def receive(self) -> Message:
        message = await self._receive()
        self.request_bytes += len(message.get("body", b""))
        return message

    def send(self, message: Message) -> Awaitable[None]:
        if message["type"] == "http.response.start":
            self.scope["status"] = message["status"]
            message = {**message, "headers": self.headers_of(message)}
        else:
            self.response_bytes += len(message.get("body", b""))
        return self._send(message)

    def headers_of(self, message: Message) -> list[tuple[bytes, bytes]]:
        """A new list: the app's own may be of a Response that answers other requests, too."""
        headers = list(message.get("headers", ()))
        security = SECURITY_HEADERS_OF_HTTPS if self.scope["scheme"] == "https" else SECURITY_HEADERS
        if SECURITY_HEADER_NAMES.isdisjoint(map(bytes.lower, map(itemgetter(0), headers))):
            headers += security
        else:
            given = {name.lower() for name, _ in headers}
            headers += [header for header in security if header[0] not in given]
        if self.cors:
            headers = self.cors.added(headers, self.headers.get(b"origin"))
        headers.append((b"x-request-id", self.context.request_id.encode()))
        headers.append((b"traceparent", self.context.traceparent.encode()))
        return headers

    async def answer(self, problem: Problem | Unavailable) -> None:
        """Unless another answer has begun: then the server cuts it off, so that the client sees it is incomplete."""
        if "status" not in self.scope:
            await problem_response(problem, self.scope["path"])(self.scope, self._receive, self.send)

    def write_line(self, metrics: RequestMetrics) -> None:
        scope, context = self.scope, self.context
        route = getattr(scope.get("route"), "path", None)
        method, path, status = scope["method"], scope["path"], scope.get("status", 0)
        seconds = time.perf_counter() - self.started
        metrics.observe(method, route, status, seconds)
        if not access_log.isEnabledFor(logging.INFO):
            return
        client = scope["client"][0] if scope.get("client") else None
        user_agent = self.headers.get(b"user-agent", b"").decode("latin-1")
        line = AccessLine(  # by position: finding the fields by name takes longer than writing the line
            rfc3339(now_ms()), "INFO", f"{method} {path} {status}", access_log.name, "access",
            context.trace_id, context.span_id, context.request_id,
            method, route, path, status,
            int(seconds * 1_000_000) / 1000, self.request_bytes, self.response_bytes,
            client, user_agent,
        )  # fmt: skip
        outside = f"{method} {path} {client} {user_agent} {context.trace_id} {context.request_id}"
        # In place of access_log.info(), which takes four times as long; only filters of this very logger are passed by.
        access_log.callHandlers(AccessRecord(line, outside))


def context_of(headers: Mapping[bytes, bytes]) -> RequestContext:
    """A span of our own in the caller's trace: `traceparent` first, then `X-Cloud-Trace-Context`, else a new trace."""
    random_hex = random_bytes(24).hex()
    trace_id, sampled = trace_of(headers) or (random_hex[:32], False)
    request_id = ""
    if b"x-request-id" in headers:
        request_id = headers[b"x-request-id"].decode("latin-1").strip(OWS)
    if not (request_id and re.fullmatch(REQUEST_ID, request_id)):
        request_id = new_id()
    return RequestContext(trace_id, random_hex[32:], request_id, sampled)


def trace_of(headers: Mapping[bytes, bytes]) -> tuple[str, bool] | None:
    if b"traceparent" in headers:
        traceparent = headers[b"traceparent"].decode("latin-1").strip(OWS)
        found = re.fullmatch(TRACEPARENT, traceparent)
        if found and (len(traceparent) == VERSION_00_LENGTH or not traceparent.startswith("00")):
            return found[1], bool(int(found[2], 16) & 1)
    if b"x-cloud-trace-context" in headers:
        found = re.fullmatch(CLOUD_TRACE, headers[b"x-cloud-trace-context"].decode("latin-1").strip(OWS))
        if found:
            return found[1].lower(), found[2] == "1"
    return None
