"""Other services: who asks with a bearer token (RFC 6750) that a setting holds."""

import base64
import hmac
from contextlib import suppress
from typing import Any

from starlette.requests import HTTPConnection

from infra.http.fields import OWS
from infra.http.problems import Problem, Unauthorized

KIND = "service token"


async def authenticate_service(request: HTTPConnection[Any], token: str | None) -> None:
    """A 401 Problem unless the request carries the `token`, or a 404 when none is set; a 429 after too many guesses.

    As the password of Basic (RFC 7617) it will do, too: from a URL's userinfo that is all that Knative's sources make.
    """
    refusals = request.state.refusals
    if token is None:
        raise Problem(404, "no such resource")
    scheme, credentials = authorization(request)
    given = credentials.encode("latin-1")
    if scheme == "basic":
        with suppress(ValueError):
            given = base64.b64decode(given).partition(b":")[2]
    if scheme not in ("bearer", "basic"):
        raise Unauthorized("a bearer token is needed")
    if refusals.are_too_many(request, KIND):
        await refusals.count(request, KIND)
    if not hmac.compare_digest(given, token.encode()):
        await refusals.count(request, KIND)
        raise Unauthorized("the bearer token is wrong", "invalid_token")
    refusals.trust(request)


def authorization(request: HTTPConnection[Any]) -> tuple[str, str]:
    """The scheme, in lower case, and the credentials that the request was sent with (RFC 9110, section 11.6.2).

    Raises a 400 Problem for more than one of them (RFC 6750, section 3.1).
    """
    given = [value for name, value in request.scope["headers"] if name == b"authorization"]
    if len(given) > 1:
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_request"'}
        raise Problem(400, "the Authorization header may come once", headers=challenge)
    scheme, _, credentials = given[0].decode("latin-1").strip(OWS).partition(" ") if given else ("", "", "")
    return scheme.lower(), credentials.strip(" ")
