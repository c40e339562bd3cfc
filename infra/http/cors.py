"""CORS (https://fetch.spec.whatwg.org/#http-cors-protocol) for the pages of CORS_ORIGINS."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from infra.http.fields import OWS, members
from infra.http.operations import operations_of
from infra.http.problems import Problem, problem_response

IDS = {"X-Request-ID", "traceparent"}  # of every request and answer
TRACE = {"tracestate", "X-Cloud-Trace-Context"}  # what else a page's tracing may send
SAFELISTED = {"Accept", "Accept-Language", "Content-Language", "Content-Type"}
PREFLIGHT_VARY = "Access-Control-Request-Method, Access-Control-Request-Headers"
MAX_AGE = 600  # seconds that a browser remembers a preflight

RawHeaders = list[tuple[bytes, bytes]]


class Cors:
    """For the methods and headers that the operations declare."""

    def __init__(self, origins: Sequence[str], routes: Sequence[Route] = ()) -> None:
        operations = list(operations_of(routes))
        asked = IDS.union(TRACE, SAFELISTED, *(operation.request_header_names() for *_, operation in operations))
        answered = {*IDS, "Retry-After"}.union(*(operation.answer_header_names() for *_, operation in operations))
        self.everybody = "*" in origins
        self.origins = {origin.encode() for origin in origins}
        self.methods = {method for _, method, _ in operations} | {"HEAD"}
        self.headers = {name.lower() for name in asked}
        self.exposed = ", ".join(sorted(answered)).encode()
        self.preflight_headers = {
            "Access-Control-Allow-Methods": ", ".join(sorted(self.methods)),
            "Access-Control-Allow-Headers": ", ".join(sorted(asked)),
            "Access-Control-Max-Age": str(MAX_AGE),
            "Vary": PREFLIGHT_VARY,
        }

    def allows(self, origin: bytes | None) -> bool:
        return origin is not None and (self.everybody or origin in self.origins)

    def added(self, headers: RawHeaders, origin: bytes | None) -> RawHeaders:
        """An answer's headers and those that say whether a page of the `origin` may read it; a new list."""
        cors = []
        if self.allows(origin):
            allowed = b"*" if self.everybody else origin or b""
            cors = [(b"access-control-allow-origin", allowed), (b"access-control-expose-headers", self.exposed)]
        varies = [value for name, value in headers if name.lower() == b"vary"]
        others = [header for header in headers if header[0].lower() != b"vary"]
        return [*others, *cors, (b"vary", b", ".join([*varies, b"Origin"]))]

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a preflight; None when the request is something else."""
        headers = Headers(scope=scope)
        method = headers.get("access-control-request-method")
        if scope["method"] != "OPTIONS" or method is None or "origin" not in headers:
            return None
        origins = headers.getlist("origin")
        asked = {name.lower() for name in members(headers.getlist("access-control-request-headers"))}
        fine = {
            "origin": len(origins) == 1 and self.allows(origins[0].strip(OWS).encode("latin-1")),
            "method": method.strip(OWS) in self.methods,
            "headers": asked <= self.headers,
        }
        if all(fine.values()):
            return PlainTextResponse("OK", headers=self.preflight_headers)
        refused = ", ".join(name for name, taken in fine.items() if not taken)
        return problem_response(
            Problem(400, f"Disallowed CORS {refused}", headers={"Vary": PREFLIGHT_VARY}), scope["path"]
        )
