"""Problem documents (RFC 9457): the one place where an error becomes an answer."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Scope

from infra.base.errors import Duplicate, Unavailable
from infra.http.paths import uri_reference
from infra.logs import get_logger, request_context

NO_RESOURCE = "no such resource"
PROBLEM_HEADERS = {401: "WWW-Authenticate", 429: "Retry-After", 503: "Retry-After"}

log = get_logger("system")


class FieldError(msgspec.Struct):
    field: Annotated[str, Meta(examples=["password"])]
    message: Annotated[str, Meta(examples=["expected 8 to 256 characters"])]


class ProblemDocument(msgspec.Struct):
    type: Literal["about:blank"]
    title: Annotated[str, Meta(description="of the status", examples=["Unprocessable Entity"])]
    status: Annotated[int, Meta(examples=[422])]
    detail: Annotated[str, Meta(examples=["password: expected 8 to 256 characters"])]
    instance: Annotated[str, Meta(description="the path, a URI reference", examples=["/v1/auth/register"])]
    trace_id: Annotated[
        str, Meta(description="as in the service's log lines", examples=["4bf92f3577b34da6a3ce929d0e0e4736"])
    ]
    errors: list[FieldError] | msgspec.UnsetType = msgspec.UNSET


class Problem(Exception):  # noqa: N818 - the RFC's word
    """An answer other than success; raised wherever the cause is found."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        errors: list[FieldError] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.errors = errors


def invalid(field: str, message: str) -> Problem:
    """A 422 that names one field."""
    return Problem(422, f"{field}: {message}" if field else message, errors=[FieldError(field, message)])


class Unauthorized(Problem):
    """A 401 with the challenge of RFC 6750, section 3; `error` only when credentials were sent (section 3.1)."""

    def __init__(self, detail: str, error: str = "") -> None:
        super().__init__(401, detail)
        self.error = error


def problem_document(status: int, detail: str, instance: str, errors: list[FieldError] | None = None) -> bytes:
    """The document's JSON, with the trace id of the request at hand; `instance` is its path, decoded."""
    context = request_context.get()
    errors = [FieldError(printable(error.field), printable(error.message)) for error in errors or []]
    return msgspec.json.encode(
        ProblemDocument(
            type="about:blank",
            title=HTTPStatus(status).phrase,
            status=status,
            detail=printable(detail),
            instance=uri_reference(instance),
            trace_id=context.trace_id if context else "",
            errors=errors or msgspec.UNSET,
        )
    )


def printable(text: str) -> str:
    """Without lone surrogates, which JSON may escape but UTF-8 can't hold."""
    return text.encode("utf-8", "replace").decode()


def problem_response(error: Problem | Unavailable | Duplicate, instance: str) -> Response:
    problem = problem_of(error)
    body = problem_document(problem.status, problem.detail, instance, problem.errors)
    return Response(body, problem.status, problem.headers, media_type="application/problem+json")


def problem_of(error: Problem | Unavailable | Duplicate) -> Problem:
    if isinstance(error, Unavailable):
        return Problem(503, error.detail, headers={"Retry-After": str(error.retry_after)})
    if isinstance(error, Duplicate):
        return Problem(409, str(error), errors=[FieldError(error.field, "is taken")])
    return error


def error_response(
    error: Problem | Unavailable | Duplicate | HTTPException | ClientDisconnect, scope: Scope
) -> Response:
    """The answer to what a handler or the router raised."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it; nginx's word for it in the access line
    if isinstance(error, HTTPException):
        error = routing_problem(error, scope)
    if isinstance(error, Unavailable) and error.cause:
        log.warning("%s: %s", error.detail, error.cause)
    if isinstance(error, Unauthorized):
        reason = f', error="{error.error}"' if error.error else ""
        error.headers["WWW-Authenticate"] = f'Bearer realm="{scope["state"]["settings"].name}"{reason}'
    return problem_response(error, scope["path"])


def routing_problem(error: HTTPException, scope: Scope) -> Problem:
    """Starlette's own: unknown path and wrong method."""
    if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        return Problem(error.status_code, NO_RESOURCE)
    same_path = (route for route in scope["router"].routes if route.path == scope["route"].path)
    allow = ", ".join(sorted({method for route in same_path for method in route.methods}))
    return Problem(405, f"{scope['method']} is not allowed here", headers={"Allow": allow})
