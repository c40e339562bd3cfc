"""Sessions: log in, refresh, log out, list, revoke.

Whoever changes several rows locks them in the order account, session, refresh token.
"""

from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from handlers.accounts.known_clients import remember_client
from handlers.accounts.names import SENT_MAX, login_key
from handlers.accounts.password_rules import Password
from handlers.accounts.passwords import Who
from handlers.accounts.principal import AccountRow, Principal, account_of, count_wrong_token, name_account
from handlers.accounts.state import AccountsState, Request
from handlers.accounts.token_pairs import RefreshToken, Tokens, add_refresh_token, tokens
from handlers.accounts.tokens import refresh_token_hash
from infra.base.ids import Id, new_id
from infra.base.times import Time, now_ms, utc
from infra.http.clients import client_network_of
from infra.http.openapi import ASKED_FOR
from infra.http.operations import operation
from infra.http.pages import Page, PageQuery, page_of
from infra.http.problems import Problem, Unauthorized
from infra.logs import get_logger
from infra.redis.counters import Window
from infra.sql.database import Connection

USER_AGENT_MAX = 512  # characters, as the column is wide
SPENT_TOKENS = 5  # of a session, the newest, that are kept to see when one is used again
MANY_TOKENS = 10  # of a session, when the older ones are deleted
MOST_AT_ONCE = 100  # sessions that make room for a new one

audit = get_logger("audit")


class Login(Struct, forbid_unknown_fields=True):
    login: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=SENT_MAX,
            description="a username or an email address",
            examples=["ada"],
            extra_json_schema={ASKED_FOR: {"maxLength": 254}},
        ),
    ]
    password: Password


class Refresh(Struct, forbid_unknown_fields=True):
    refresh_token: RefreshToken


class Credentials(NamedTuple):
    account: AccountRow
    password_hash: str
    known_until: int | None  # the client, to the account


class RefreshTokenRow(NamedTuple):
    id: str
    username: str
    email: str
    created_at: int
    updated_at: int
    session_id: str
    session_created_at: int
    tokens: int  # that the session has, spent ones too


class Session(Struct):
    id: Id
    created_at: Time
    last_used_at: Time
    expires_at: Time
    client: Annotated[str, Meta(description="the address it was made from", examples=["203.0.113.7"])]
    user_agent: Annotated[str, Meta(examples=["curl/8.5.0"])]
    current: Annotated[bool, Meta(description="whether it is the one that asks", examples=[True])]


@operation(problems={401: "no such account, or not its password", 429: "too many failed attempts"})
async def log_in(request: Request, body: Login) -> Tokens:
    """Start a session."""
    state = request.state
    client = client_network_of(request)
    column, key = login_key(body.login)
    found = await find_credentials(state, column, key, client)
    if found:
        name_account(found.account.id)
    known = bool(found and found.known_until and found.known_until > now_ms())
    who = Who(client, known=known)
    async with state.limits.sign_in(key, found.account.id if found else None, client, known=known) as guess:
        right = await state.passwords.verify(body.password, found.password_hash if found else None, who)
        if not found or not right or not guess.looked_at:
            raise failed(request)
    account, old_hash = account_of(found.account), found.password_hash
    rehash = state.passwords.needs_rehash(old_hash)
    new_hash = await state.passwords.hash(body.password, who) if rehash else old_hash
    session_id, refresh_token = await start_session(request, account.id, password_hash=old_hash, new_hash=new_hash)
    await remember_client(state.database, account.id, client, found.known_until, new_hash)
    audit.info("logged in", extra={"event": "login.succeeded", "session_id": session_id})
    return tokens(state, account, session_id, refresh_token)


def failed(request: Request) -> Unauthorized:
    """What a log-in that fails raises; the audit log is told."""
    audit.warning("login failed", extra={"event": "login.failed", "client": client_address(request)})
    return Unauthorized("wrong login or password")


async def find_credentials(state: AccountsState, column: str, key: str, client: str) -> Credentials | None:
    """Of the account with that name or address; `client` is a network."""
    row = await state.database.fetch_one(
        "SELECT a.id, a.username, a.email, a.created_at, a.updated_at, a.password_hash, k.expires_at FROM accounts a"  # noqa: S608
        " LEFT JOIN known_clients k ON k.account_id = a.id AND k.network = :network"
        f" WHERE a.{column} = :key",
        {"key": key, "network": client},
    )
    return Credentials(AccountRow(*row[:-2]), *row[-2:]) if row else None


async def start_session(request: Request, account_id: str, *, password_hash: str, new_hash: str) -> tuple[str, str]:
    """The new session's id and refresh token; a 401 when the password was changed since it was looked at."""
    now, session_id = now_ms(), new_id()
    settings = request.state.settings
    expires_at = now + min(settings.refresh_token_ttl, settings.session_max_age) * 1000
    session = {
        "account_id": account_id,
        "session_id": session_id,
        "now": now,
        "expires_at": expires_at,
        "client": client_address(request),
        "user_agent": request.headers.get("user-agent", "")[:USER_AGENT_MAX],
    }
    displaced: list[str] = []
    async with request.state.database.transaction() as transaction:
        unchanged = await transaction.execute(
            "UPDATE accounts SET last_login_at = :now, password_hash = :new_hash"
            " WHERE id = :account_id AND password_hash = :password_hash",
            {"account_id": account_id, "now": now, "password_hash": password_hash, "new_hash": new_hash},
        )
        if unchanged:
            await transaction.execute(
                "INSERT INTO sessions (account_id, id, created_at, last_used_at, expires_at, client, user_agent)"
                " VALUES (:account_id, :session_id, :now, :now, :expires_at, :client, :user_agent)",
                session,
            )
            refresh_token = await add_refresh_token(
                transaction, request.state.token_keys, account_id, session_id, expires_at
            )
            displaced = await make_room(transaction, account_id, session_id, settings.max_sessions)
            for ended in displaced:
                await request.state.sessions.forget_session(account_id, ended)
    if not unchanged:
        raise failed(request)
    for ended in displaced:
        audit.info("session made room", extra={"event": "session.displaced", "session_id": ended})
    return session_id, refresh_token


async def make_room(transaction: Connection, account_id: str, newest: str, most: int) -> list[str]:
    """Ends the sessions that are one too many: the expired ones, then those unused longest. Their ids."""
    values = {"account_id": account_id}
    [[number]] = await transaction.fetch_all("SELECT COUNT(*) FROM sessions WHERE account_id = :account_id", values)
    if number <= most:
        return []
    rows = await transaction.fetch_all(
        "SELECT expires_at > :now, last_used_at, id FROM sessions WHERE account_id = :account_id AND id <> :newest",
        values | {"now": now_ms(), "newest": newest},
    )
    displaced = [session_id for _, _, session_id in sorted(rows)[: min(number - most, MOST_AT_ONCE)]]
    for session_id in displaced:
        await end_session(transaction, account_id, session_id)
    return displaced


@operation(problems={401: "the refresh token is invalid, expired or spent", 429: "too many refreshes, or wrong tokens"})
async def refresh(request: Request, body: Refresh) -> Tokens:
    """Exchange a refresh token for a new pair of tokens.

    It is spent then; to use it again ends its session (RFC 9700, section 4.14.2).
    """
    state = request.state
    token_hash = refresh_token_hash(body.refresh_token)
    row = await state.database.fetch_one(
        "SELECT a.id, a.username, a.email, a.created_at, a.updated_at, t.session_id, s.created_at,"
        " (SELECT COUNT(*) FROM refresh_tokens o WHERE o.account_id = t.account_id AND o.session_id = t.session_id)"
        " FROM refresh_tokens t JOIN accounts a ON a.id = t.account_id"
        " JOIN sessions s ON s.account_id = t.account_id AND s.id = t.session_id"
        " WHERE t.token_hash = :token_hash AND t.expires_at > :now",
        {"token_hash": token_hash, "now": now_ms()},
        into=RefreshTokenRow,
    )
    expires_at = row and session_end(state, row.session_created_at)
    if not row or not expires_at:
        await end_session_of_forgotten_token(state, body.refresh_token)
        await count_wrong_token(request, "refresh token")
        raise Unauthorized("the refresh token is invalid or has expired")
    account, session_id = account_of(AccountRow(*row[:5])), row.session_id
    name_account(account.id)
    await count_refresh(request, account.id, session_id)
    refresh_token = await rotate(state, row, token_hash, expires_at)
    if not refresh_token:
        raise used_twice(session_id)
    audit.info("session refreshed", extra={"event": "session.refreshed", "session_id": session_id})
    return tokens(state, account, session_id, refresh_token)


def used_twice(session_id: str) -> Unauthorized:
    """What the second use of a refresh token raises; the audit log is told."""
    audit.warning("refresh token used twice", extra={"event": "refresh.reused", "session_id": session_id})
    return Unauthorized("the refresh token was used before: its session has ended")


async def end_session_of_forgotten_token(state: AccountsState, refresh_token: str) -> None:
    """Raises a 401 Problem for one that is spent and no longer kept, when its session lives: that ends, too.

    One from before a change of the account, as of its password, ends nothing: whoever has stolen it keeps nobody out.
    """
    token = state.token_keys.read_refresh_token(refresh_token)
    if not token:
        return
    values = {"account_id": token.account_id, "session_id": token.session_id, "issued_at": token.issued_at}
    async with state.database.transaction() as transaction:
        alive = await transaction.fetch_one(
            "SELECT s.id FROM sessions s JOIN accounts a ON a.id = s.account_id"
            " WHERE s.account_id = :account_id AND s.id = :session_id AND a.updated_at < :issued_at",
            values,
        )
        if alive:
            await end_session(transaction, token.account_id, token.session_id)
            await state.sessions.forget_session(token.account_id, token.session_id)
    if alive:
        name_account(token.account_id)
        raise used_twice(token.session_id)


def session_end(state: AccountsState, created_at: int) -> int | None:
    """When a session ends that is used now, in Unix milliseconds; None when it is too old already."""
    settings, now = state.settings, now_ms()
    end = min(now + settings.refresh_token_ttl * 1000, created_at + settings.session_max_age * 1000)
    return end if end > now else None


async def count_refresh(request: Request, account_id: str, session_id: str) -> None:
    """Raises a 429 Problem when the session was refreshed too often; its token isn't spent then."""
    attempts, seconds = request.state.settings.refresh_rate_limit
    key = request.state.redis.key(account_id, f"refreshes:{session_id}")
    if wait := await request.state.limits.counters.take(Window(key, attempts, seconds)):
        request.state.refusals.tell("refresh.limited", client_network_of(request), "refreshes limited")
        raise Problem(429, "too many refreshes of this session", headers={"Retry-After": str(wait)})


async def rotate(state: AccountsState, row: RefreshTokenRow, token_hash: str, expires_at: int) -> str | None:
    """The refresh token that replaces a spent one; None, and the session has ended, when it was spent before."""
    now, session_id = now_ms(), row.session_id
    values = {"account_id": row.id, "session_id": session_id, "now": now, "expires_at": expires_at}
    async with state.database.transaction() as transaction:
        # The session's row is locked first: of two uses at the same instant the second one sees the first.
        # It lives as long as its newest token. To ask for expires_at would let MySQL lock its way along that index.
        alive = await transaction.execute(
            "UPDATE sessions SET last_used_at = :now, expires_at = :expires_at"
            " WHERE account_id = :account_id AND id = :session_id",
            values,
        )
        unspent = alive and await transaction.execute(
            "UPDATE refresh_tokens SET spent_at = :now WHERE token_hash = :token_hash AND spent_at IS NULL",
            {"now": now, "token_hash": token_hash},
        )
        if unspent:
            if row.tokens > MANY_TOKENS:
                await forget_spent_tokens(transaction, row.id, session_id)
            return await add_refresh_token(transaction, state.token_keys, row.id, session_id, expires_at)
        await end_session(transaction, row.id, session_id)
        await state.sessions.forget_session(row.id, session_id)
    return None


async def forget_spent_tokens(transaction: Connection, account_id: str, session_id: str) -> None:
    """But for the newest few: a session that is refreshed again and again must not grow."""
    values = {"account_id": account_id, "session_id": session_id}
    rows = await transaction.fetch_all(
        "SELECT spent_at FROM refresh_tokens"
        " WHERE account_id = :account_id AND session_id = :session_id AND spent_at IS NOT NULL",
        values,
    )
    newest = sorted((spent_at for [spent_at] in rows), reverse=True)[:SPENT_TOKENS]
    await transaction.execute(
        "DELETE FROM refresh_tokens WHERE account_id = :account_id AND session_id = :session_id AND spent_at < :oldest",
        values | {"oldest": newest[-1]},
    )


async def end_session(transaction: Connection, account_id: str, session_id: str) -> bool:
    """Deletes the session and its refresh tokens; whether there was one."""
    values = {"account_id": account_id, "session_id": session_id}
    ended = await transaction.execute(
        "DELETE FROM sessions WHERE account_id = :account_id AND id = :session_id", values
    )
    await transaction.execute(
        "DELETE FROM refresh_tokens WHERE account_id = :account_id AND session_id = :session_id", values
    )
    return ended > 0


@operation()
async def log_out(request: Request, principal: Principal) -> None:
    """End this session."""
    async with request.state.database.transaction() as transaction:
        await end_session(transaction, principal.account.id, principal.session_id)
        await request.state.sessions.forget_session(principal.account.id, principal.session_id)
    audit.info("logged out", extra={"event": "logout", "session_id": principal.session_id})


@operation()
async def list_sessions(request: Request, principal: Principal, query: PageQuery) -> Page[Session]:
    """List the account's live sessions, newest first."""
    rows = await request.state.database.fetch_all(
        "SELECT id, created_at, last_used_at, expires_at, client, user_agent FROM sessions"
        " WHERE account_id = :account_id AND id < :after AND expires_at > :now ORDER BY id DESC LIMIT :count",
        {"account_id": principal.account.id, "now": now_ms(), **query.values()},
        may_lag=True,
    )
    sessions = [
        Session(key, utc(created), utc(used), utc(expires), client, agent, current=key == principal.session_id)
        for key, created, used, expires, client, agent in rows
    ]
    return page_of(sessions, query)


@operation(problems={404: "the account has no such session"})
async def revoke_session(request: Request, principal: Principal, session_id: Id) -> None:
    """End one of the account's sessions."""
    async with request.state.database.transaction() as transaction:
        ended = await end_session(transaction, principal.account.id, session_id)
        if ended:
            await request.state.sessions.forget_session(principal.account.id, session_id)
    if not ended:
        request.state.refusals.tell(
            "session.refused", client_network_of(request), "sessions of nobody or another account"
        )
        raise Problem(404, "no such session")
    audit.info("session revoked", extra={"event": "session.revoked", "session_id": session_id})


def client_address(request: Request) -> str:
    return request.client.host[:64] if request.client else ""
