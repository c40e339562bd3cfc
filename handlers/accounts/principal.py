"""Who asks: the account and session behind a bearer token (RFC 6750). A handler asks with `principal: Principal`."""

from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from handlers.accounts.state import AccountsState, Request
from handlers.accounts.tokens import AccessToken
from infra.base.ids import Id
from infra.base.kinds import RateLimit
from infra.base.times import Time, now_ms, utc
from infra.http.clients import client_network_of
from infra.http.parts import Reader
from infra.http.problems import Unauthorized
from infra.http.service_tokens import authorization
from infra.logs import name_user
from infra.sql.database import Connection

SAFE_METHODS = ("GET", "HEAD")  # RFC 9110, section 9.2.1; whatever changes data asks the database who may
ENDED = "the session has ended"

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
    account = await live_account(state, token, may_be_cached=request.method in SAFE_METHODS)
    if not account:
        state.refusals.tell_wrong_token(client_network_of(request), "token of an ended session")
        raise Unauthorized(ENDED, "invalid_token")
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


async def live_account(state: AccountsState, token: AccessToken, *, may_be_cached: bool) -> Account | None:
    """The account of the token's session, or None when the session has ended.

    `may_be_cached`: one that has ended elsewhere may be taken for alive as long as Redis keeps it, a minute at most.
    """
    if may_be_cached and (cached := await state.sessions.get(token.account_id, token.session_id)):
        return msgspec.json.decode(cached, type=Account)
    now = now_ms()
    row = await state.database.fetch_one(
        "SELECT a.id, a.username, a.email, a.created_at, a.updated_at, s.expires_at FROM sessions s"
        " JOIN accounts a ON a.id = s.account_id"
        " WHERE s.account_id = :account_id AND s.id = :session_id AND s.expires_at > :now",
        {"account_id": token.account_id, "session_id": token.session_id, "now": now},
    )
    if not row:
        return None
    *columns, expires_at = row
    account = account_of(AccountRow(*columns))
    if may_be_cached and state.redis.enabled:
        as_json = msgspec.json.encode(account)
        await state.sessions.put(account.id, token.session_id, as_json, read_at=now, expires_at=expires_at)
    return account


async def check_session(transaction: Connection, principal: Principal) -> int:
    """When the session ends, in Unix milliseconds; a 401 Problem when it has ended since it was looked at.

    That may be a while ago: a password takes its time. For a transaction that has written the account's row: whoever
    ends all its sessions waits for that.
    """
    alive = await transaction.fetch_one(
        "SELECT expires_at FROM sessions WHERE account_id = :account_id AND id = :session_id",
        {"account_id": principal.account.id, "session_id": principal.session_id},
    )
    if not alive:
        raise Unauthorized(ENDED, "invalid_token")
    return int(alive[0])


def account_of(row: AccountRow) -> Account:
    return Account(row.id, row.username, row.email, utc(row.created_at), utc(row.updated_at))


def name_account(account_id: str) -> None:
    """Puts the account's id on the request's log lines."""
    name_user("account_id", account_id)
