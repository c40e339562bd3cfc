"""Who asks: the bearer token (RFC 6750) of a live session and the account behind it, or that of another service."""

import base64
import hmac
from contextlib import suppress
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta

from infra.sql.database import Row
from infra.base.ids import Id
from infra.logs import request_context
from infra.http.problems import Problem, unauthorized
from infra.state import Request, State
from infra.base.times import Time, now_ms, utc
from handlers.accounts.tokens import AccessToken


class Account(msgspec.Struct):
    id: Id
    username: Annotated[str, Meta(examples=["ada"])]
    email: Annotated[str, Meta(examples=["ada@example.com"])]
    created_at: Time
    updated_at: Time


class Principal(NamedTuple):
    account: Account
    session_id: str


async def authenticate(request: Request) -> Principal:
    """The account and session of the request's access token; a 401 Problem when there is none that lives."""
    state = request.state
    scheme, credentials = authorization(request)
    if scheme != "bearer":
        raise unauthorized("a bearer token is needed")
    token = state.token_keys.verify(credentials)
    if not token:
        raise unauthorized("the access token is invalid or has expired", "invalid_token")
    name_account(token.account_id)
    account = await live_account(state, token)
    if not account:
        raise unauthorized("the session has ended", "invalid_token")
    return Principal(account, token.session_id)


async def live_account(state: State, token: AccessToken) -> Account | None:
    """The account of the token's session, or None when the session has ended.

    One that has ended elsewhere may be taken for alive as long as Redis keeps it, a minute at most.
    """
    cached = await state.redis.get_session(token.account_id, token.session_id)
    if cached:
        return msgspec.json.decode(cached, type=Account)
    row = await state.database.fetch_one(
        "SELECT a.id, a.username, a.email, a.created_at, a.updated_at, s.expires_at FROM sessions s"
        " JOIN accounts a ON a.id = s.account_id"
        " WHERE s.account_id = :account_id AND s.id = :session_id AND s.expires_at > :now",
        {"account_id": token.account_id, "session_id": token.session_id, "now": now_ms()},
    )
    if not row:
        return None
    account = account_of(row)
    if state.redis.enabled:
        await state.redis.put_session(account.id, token.session_id, msgspec.json.encode(account), expires_at=row[5])
    return account


def authenticate_service(request: Request, token: str | None) -> None:
    """For what other services ask with a `token` from the settings; a 401 Problem, or a 404 when none is set.

    As the password of Basic (RFC 7617) it will do, too: from a URL's userinfo that is all that Knative's sources make.
    """
    if token is None:
        raise Problem(404, "no such resource")
    scheme, credentials = authorization(request)
    given = credentials.encode("latin-1")
    if scheme == "basic":
        with suppress(ValueError):
            given = base64.b64decode(given).partition(b":")[2]
    if scheme not in ("bearer", "basic"):
        raise unauthorized("a bearer token is needed")
    if not hmac.compare_digest(given, token.encode()):
        raise unauthorized("the bearer token is wrong", "invalid_token")


def authorization(request: Request) -> tuple[str, str]:
    """The scheme, in lower case, and the credentials that the request was sent with (RFC 9110, section 11.6.2)."""
    for name, value in request.scope["headers"]:  # Headers, which asks each for its name in text, takes 1 us more
        if name == b"authorization":
            scheme, _, credentials = value.decode("latin-1").partition(" ")
            return scheme.lower(), credentials.strip(" ")
    return "", ""


def account_of(row: Row) -> Account:
    """From the columns id, username, email, created_at, updated_at, in this order."""
    return Account(row[0], row[1], row[2], utc(row[3]), utc(row[4]))


def name_account(account_id: str) -> None:
    """Puts the account's id on the request's log lines."""
    if context := request_context.get():
        context.account_id = account_id
