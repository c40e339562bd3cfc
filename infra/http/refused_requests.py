"""The answer to what isn't a request: a problem document, then the client may finish sending."""

import asyncio
import re
from typing import Any

from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from infra.base.errors import Unavailable
from infra.http.limits import linger
from infra.http.paths import decoded_path
from infra.http.problems import Problem, problem_response

# What the answer and its line are made with; it waits for the client, and so do they.
KEPT = frozenset(
    {
        b"origin",
        b"traceparent",
        b"user-agent",
        b"x-cloud-trace-context",
        b"x-forwarded-for",
        b"x-forwarded-proto",
        b"x-request-id",
    }
)
ORIGIN = re.compile(rb"(?i)\norigin:[ \t]*([^\r\n]*?)[ \t]*\r?\n")


class Refusal:
    """An ASGI app, which the service's gets as `scope["refusal"]`, and its Frame calls in place of what it frames."""

    def __init__(self, problem: Problem | Unavailable) -> None:
        self.problem = problem

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = problem_response(self.problem, scope["path"])
        response.headers["Connection"] = "close"
        await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        await linger(receive)
        await send({"type": "http.response.body"})


def kept_headers(headers: list[tuple[bytes, bytes]], data: bytes) -> list[tuple[bytes, bytes]]:
    """Of a line that comes often the last ones: the nearest proxies' of X-Forwarded-For.

    `data` is what was being parsed: the parser tells of a line when it has read the next one.
    """
    kept = [header for header in headers if header[0] in KEPT][-len(KEPT) :]
    if b"origin" not in dict(kept) and (found := ORIGIN.search(data)):
        kept.append((b"origin", found[1]))
    return kept


def cycle_of_refusal(protocol: HttpToolsProtocol, method: str, problem: Problem | Unavailable) -> RequestResponseCycle:
    """The last of the connection, to be started when those before it are answered."""
    path, _, _ = protocol.url.partition(b"?")
    raw_path = path if path.startswith(b"/") else b"/"
    scope: Any = {
        "type": "http",
        "asgi": {"version": protocol.asgi_version, "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": protocol.scheme,
        "server": protocol.server,
        "client": protocol.client,
        "root_path": "",
        "path": decoded_path(raw_path),
        "raw_path": raw_path,
        "query_string": b"",
        "headers": protocol.headers,
        "state": protocol.app_state.copy(),
        "refusal": Refusal(problem),
    }
    return RequestResponseCycle(
        scope=scope,
        transport=protocol.transport,
        flow=protocol.flow,
        logger=protocol.logger,
        access_logger=protocol.access_logger,
        access_log=False,
        default_headers=protocol.server_state.default_headers,
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=False,
        on_response=protocol.on_response_complete,
    )
