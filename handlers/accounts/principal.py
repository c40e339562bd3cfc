"""Who asks: the account and session behind a bearer token (RFC 6750). A handler asks with `principal: Principal`."""

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from handlers.accounts.state import AccountsState, Request
from handlers.accounts.tokens import AccessToken
from infra.base.ids import Id
from infra.base.kinds import RateLimit
from infra.base.times import Time, now_ms, utc
from infra.http.parts import Reader
from infra.http.problems import Unauthorized
from infra.http.service_tokens import authorization
from infra.logs import name_user

WRONG_TOKENS = 20  # times LOGIN_RATE_LIMIT: of each kind, from one address


class Account(msgspec.Struct):
    id: Id
    username: Annotated[str, Meta(examples=["ada"])]
    email: Annotated[str, Meta(examples=["ada@example.com"])]
    created_at: Time
    updated_at: Time


class Principal(NamedTuple):
    account: Account
    session_id: str


class AccountRow(NamedTuple):
    """The columns that an Account is made of; times in Unix milliseconds."""

    id: str
    username: str
    email: str
    created_at: int
    updated_at: int


async def authenticate(request: Request, _: Any = None) -> Principal:
    """The account and session of the request's access token; a 401 Problem when there is none that lives."""
    state = request.state
    scheme, credentials = authorization(request)
    if scheme != "bearer":
        raise Unauthorized("a bearer token is needed")
    token = state.token_keys.verify(credentials)
    if not token:
        if not state.token_keys.has_signed(credentials):
            await count_wrong_token(request, "access token")
        raise Unauthorized("the access token is invalid or has expired", "invalid_token")
    name_account(token.account_id)
    account = await live_account(state, token)
    if not account:
        raise Unauthorized("the session has ended", "invalid_token")
    return Principal(account, token.session_id)


PRINCIPAL = Reader(
    authenticate,
    problems={401: "no access token of a live session", 429: "too many wrong tokens"},
    security={
        "access_token": {
            "type": "http",
            "scheme": "bearer",
            "bearerFormat": "JWT",
            "description": "the access_token of a login",
        }
    },
)


async def count_wrong_token(request: Request, kind: str) -> None:
    """One that we never made. Raises a 429 Problem when too many came from this address; right ones pass."""
    attempts, seconds = request.state.settings.login_rate_limit
    await request.state.refusals.count(request, kind, RateLimit(attempts * WRONG_TOKENS, seconds))


async def live_account(state: AccountsState, token: AccessToken) -> Account | None:
    """The account of the token's session, or None when the session has ended.

    One that has ended elsewhere may be taken for alive as long as Redis keeps it, a minute at most.
    """
    cached = await state.sessions.get(token.account_id, token.session_id)
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
    *columns, expires_at = row
    account = account_of(AccountRow(*columns))
    if state.redis.enabled:
        await state.sessions.put(account.id, token.session_id, msgspec.json.encode(account), expires_at=expires_at)
    return account


def account_of(row: AccountRow) -> Account:
    return Account(row.id, row.username, row.email, utc(row.created_at), utc(row.updated_at))


def name_account(account_id: str) -> None:
    """Puts the account's id on the request's log lines."""
    name_user("account_id", account_id)
