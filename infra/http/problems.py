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

from infra.logs import get_logger, request_context

NO_ANSWER = "no answer in time"
RETRY_AFTER = 2  # seconds: the lost server's clients reconnect within that once it is back

log = get_logger("system")


class FieldError(msgspec.Struct):
    field: Annotated[str, Meta(examples=["password"])]
    message: Annotated[str, Meta(examples=["expected 8 to 256 characters"])]


class ProblemDocument(msgspec.Struct):
    type: Literal["about:blank"]
    title: Annotated[str, Meta(description="of the status", examples=["Unprocessable Entity"])]
    status: Annotated[int, Meta(examples=[422])]
    detail: Annotated[str, Meta(examples=["password: expected 8 to 256 characters"])]
    instance: Annotated[str, Meta(description="the path", examples=["/v1/auth/register"])]
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


def unauthorized(detail: str, error: str = "") -> Problem:
    """A 401 with the challenge of RFC 6750, section 3; `error` only when credentials were sent (section 3.1)."""
    challenge = 'Bearer realm="berth"' + (f', error="{error}"' if error else "")
    return Problem(401, detail, headers={"WWW-Authenticate": challenge})


class Unavailable(Problem):
    """A 503 with Retry-After: what is needed is lost or too slow. `cause` is for the log, not for the client."""

    def __init__(self, detail: str, cause: BaseException | str = "", retry_after: int = RETRY_AFTER) -> None:
        super().__init__(503, detail, headers={"Retry-After": str(retry_after)})
        self.cause = describe(cause) if isinstance(cause, BaseException) else cause


class Duplicate(Problem):
    """A unique key is taken."""

    def __init__(self, field: str) -> None:
        super().__init__(409, f"{field} is taken", errors=[FieldError(field, "is taken")])


def describe(error: BaseException) -> str:
    """The innermost causes of an error in one line, without the groups and wrappers that libraries put around them."""
    if isinstance(error, BaseExceptionGroup):
        return "; ".join(describe(inner) for inner in error.exceptions)
    if isinstance(error, TimeoutError) and not str(error):  # of asyncio.timeout(), which gives no reason
        return NO_ANSWER
    inner = error.__cause__ or (error.__context__ if not error.__suppress_context__ else None)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return f"{text} ({describe(inner)})" if inner is not None else text


def problem_document(status: int, detail: str, instance: str, errors: list[FieldError] | None = None) -> bytes:
    """The document's JSON, with the trace id of the request at hand."""
    context = request_context.get()
    errors = [FieldError(printable(error.field), printable(error.message)) for error in errors or []]
    return msgspec.json.encode(
        ProblemDocument(
            type="about:blank",
            title=HTTPStatus(status).phrase,
            status=status,
            detail=printable(detail),
            instance=printable(instance),
            trace_id=context.trace_id if context else "",
            errors=errors or msgspec.UNSET,
        )
    )


def printable(text: str) -> str:
    """Without lone surrogates, which JSON may escape but UTF-8 can't hold."""
    return text.encode("utf-8", "replace").decode()


def problem_response(problem: Problem, instance: str) -> Response:
    body = problem_document(problem.status, problem.detail, instance, problem.errors)
    return Response(body, problem.status, problem.headers, media_type="application/problem+json")


def error_response(error: Problem | HTTPException | ClientDisconnect, scope: Scope) -> Response:
    """The answer to what a handler or the router raised."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)  # nobody reads it; nginx's word for it in the access line
    if isinstance(error, HTTPException):
        error = routing_problem(error, scope)
    if isinstance(error, Unavailable) and error.cause:
        log.warning("%s: %s", error.detail, error.cause)
    return problem_response(error, scope["path"])


def routing_problem(error: HTTPException, scope: Scope) -> Problem:
    """Starlette's own: unknown path and wrong method."""
    if error.status_code != HTTPStatus.METHOD_NOT_ALLOWED:
        return Problem(error.status_code, "no such resource")
    same_path = (route for route in scope["router"].routes if route.path == scope["route"].path)
    allow = ", ".join(sorted({method for route in same_path for method in route.methods}))
    return Problem(405, f"{scope['method']} is not allowed here", headers={"Allow": allow})
