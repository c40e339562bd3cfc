"""Accounts: register, read, change, delete, change the password."""

from collections.abc import Callable, Mapping
from functools import partial

import msgspec
from msgspec import UNSET, Struct, UnsetType
from starlette.responses import Response

from handlers.accounts.known_clients import forget_other_clients
from handlers.accounts.names import Email, Username, clean_email, clean_username, email_key, unique_key
from handlers.accounts.password_rules import NewPassword, Password, check_new_password
from handlers.accounts.passwords import Purpose, Who
from handlers.accounts.principal import Account, AccountRow, Principal, account_of, check_session, name_account
from handlers.accounts.state import Request
from handlers.accounts.token_pairs import Tokens, add_refresh_token, tokens
from handlers.accounts.tokens import TokenKeys
from infra.base.ids import new_id
from infra.base.times import now_ms, utc
from infra.http.bodies import invalid_fields, json_response
from infra.http.clients import client_network_of
from infra.http.operations import operation
from infra.http.parameters import Header
from infra.http.preferences import REPRESENTATION, prefers_representation
from infra.http.problems import FieldError, Problem, Unauthorized
from infra.logs import get_logger
from infra.sql.database import Connection
from settings import EVENTS

NAMING = {409: "the username or the email is taken", 429: "too many names were tried"}
WRONG_PASSWORD = {403: "the password is wrong", 429: "too many wrong passwords"}

ACCOUNT_DELETED = "account.deleted"  # the hooks that delete what other parts keep of an account, with its id

audit = get_logger("audit")


class Registration(Struct, forbid_unknown_fields=True):
    username: Username
    email: Email
    password: NewPassword


class AccountChanges(Struct, forbid_unknown_fields=True):
    current_password: Password
    username: Username | UnsetType = UNSET
    email: Email | UnsetType = UNSET


class Confirmation(Struct, forbid_unknown_fields=True):
    password: Password


class PasswordChange(Struct, forbid_unknown_fields=True):
    current_password: Password
    new_password: NewPassword


# only with events:
class Deleted(Struct):
    """What the event says of an account that has gone."""

    id: str


# end only
@operation(201, problems=NAMING)
async def register(request: Request, body: Registration) -> Account:
    """Make an account."""
    client = client_network_of(request)
    async with request.state.limits.naming(client):
        username, email, password_hash = await checked(request, body, Who(client, Purpose.REGISTRATION))
        return await add_account(request, username, email, password_hash)


async def add_account(request: Request, username: str, email: str, password_hash: str) -> Account:
    now = now_ms()
    account = Account(new_id(), username, email, utc(now), utc(now))
    values = {
        "id": account.id,
        "username": username,
        "username_key": unique_key(username),
        "email": email,
        "email_key": email_key(email),
        "password_hash": password_hash,
        "now": now,
    }
    outbox = request.state.outbox  # only with events
    async with request.state.database.transaction() as transaction:
        await transaction.execute(
            "INSERT INTO accounts (id, username, username_key, email, email_key, password_hash, created_at, updated_at)"
            " VALUES (:id, :username, :username_key, :email, :email_key, :password_hash, :now, :now)",
            values,
        )
        # only with events:
        await outbox.add(transaction, f"{EVENTS}.account.registered", account.id, account.id, account)
    outbox.filled.set()
    # end only
    name_account(account.id)
    audit.info("account registered", extra={"event": "account.registered"})
    return account


async def checked(request: Request, body: Registration, who: Who) -> tuple[str, str, str]:
    """The username and the email as they are kept, and the password's hash. Raises a 422 Problem."""
    settings = request.state.settings
    names = (body.username, body.email, email_key(body.email), settings.name)
    right = all_right(
        {
            "username": partial(clean_username, body.username, settings.reserved_usernames),
            "email": partial(clean_email, body.email),
            "password": partial(check_new_password, body.password, names),
        }
    )
    return right["username"], right["email"], await request.state.passwords.hash(body.password, who)


@operation()
async def read_me(request: Request, principal: Principal) -> Account:
    """Read the account."""
    return principal.account


@operation(problems={**NAMING, **WRONG_PASSWORD, 429: "too many wrong passwords, or too many names were tried"})
async def update_me(request: Request, principal: Principal, body: AccountChanges) -> Account:
    """Change the username or the email; what the body doesn't name stays."""
    reserved, checks = request.state.settings.reserved_usernames, dict[str, Callable[[], str]]()
    if body.username is not UNSET:
        checks["username"] = partial(clean_username, body.username, reserved)
    if body.email is not UNSET:
        checks["email"] = partial(clean_email, body.email)
    right = all_right(checks)
    await confirm_password(request, principal, body.current_password)
    changes = {name: text for name, text in right.items() if text != getattr(principal.account, name)}
    if not changes:
        return principal.account
    async with (
        request.state.limits.naming(client_network_of(request), principal.account.id),
        request.state.database.transaction() as transaction,
    ):
        account = await change_account(transaction, principal, changes)
        await request.state.sessions.forget_account(account.id)
        # only with events:
        outbox = request.state.outbox
        event_id = await outbox.next_id(transaction, account.id, after=account.id)
        await outbox.add(transaction, f"{EVENTS}.account.updated", account.id, event_id, account)
    outbox.filled.set()
    # end only
    audit.info("account updated", extra={"event": "account.updated", "changed": sorted(changes)})
    return account


async def change_account(transaction: Connection, principal: Principal, changes: dict[str, str]) -> Account:
    """The account as it is then; a 401 Problem when it, or the session, has gone meanwhile."""
    username, email = changes.get("username"), changes.get("email")
    await transaction.execute(
        "UPDATE accounts SET username = COALESCE(:username, username), email = COALESCE(:email, email),"
        " username_key = COALESCE(:username_key, username_key), email_key = COALESCE(:email_key, email_key),"
        " updated_at = :now WHERE id = :id",
        {
            "id": principal.account.id,
            "username": username,
            "username_key": username and unique_key(username),
            "email": email,
            "email_key": email and email_key(email),
            "now": now_ms(),
        },
    )
    await check_session(transaction, principal)
    row = await transaction.fetch_one(
        "SELECT id, username, email, created_at, updated_at FROM accounts WHERE id = :id",
        {"id": principal.account.id},
        into=AccountRow,
    )
    if not row:
        raise Unauthorized("the account has been deleted", "invalid_token")
    return account_of(row)


@operation(problems=WRONG_PASSWORD)
async def delete_me(request: Request, principal: Principal, body: Confirmation) -> None:
    """Delete the account and all that is kept of it."""
    await confirm_password(request, principal, body.password)
    account_id = principal.account.id
    values = {"account_id": account_id}
    async with request.state.database.transaction() as transaction:
        deleted = await transaction.execute("DELETE FROM accounts WHERE id = :account_id", values)
        if deleted:
            await check_session(transaction, principal)
        await transaction.execute("DELETE FROM sessions WHERE account_id = :account_id", values)
        await transaction.execute("DELETE FROM refresh_tokens WHERE account_id = :account_id", values)
        await transaction.execute("DELETE FROM known_clients WHERE account_id = :account_id", values)
        for hook in request.state.hooks[ACCOUNT_DELETED]:
            await hook(transaction, account_id)
        await request.state.sessions.forget_account(account_id)
        # only with events:
        outbox, gone = request.state.outbox, Deleted(account_id)
        if deleted:
            await outbox.redact(transaction, account_id, gone)
            # Of the events that it is above, one told of the registration: with the account's id as its own.
            event_id = await outbox.next_id(transaction, account_id, after=account_id)
            await outbox.add(transaction, f"{EVENTS}.account.deleted", account_id, event_id, gone)
    outbox.filled.set()
    # end only
    if deleted:
        audit.info("account deleted", extra={"event": "account.deleted"})


@operation(
    204, answers={200: Tokens, 204: None}, problems={409: "another request changed the password", **WRONG_PASSWORD}
)
async def change_password(
    request: Request, principal: Principal, body: PasswordChange, prefer: Header[str | None]
) -> Response:
    """Change the password; every other session of the account ends, and so does this one's refresh token.

    With `Prefer: return=representation` (RFC 7240) a new pair of tokens is answered. Without, the session lives as long
    as its access token.
    """
    current_hash = await confirm_password(request, principal, body.current_password)
    await check_own_password(request, principal, body.new_password)
    client = client_network_of(request)
    new_hash = await request.state.passwords.hash(body.new_password, Who(client, known=True))
    now, tells = now_ms(), prefers_representation(prefer)
    values = {"account_id": principal.account.id, "new_hash": new_hash, "current_hash": current_hash, "now": now}
    async with request.state.database.transaction() as transaction:
        await replace_hash(transaction, values)
        expires_at = await check_session(transaction, principal)
        if not tells:
            expires_at = min(expires_at, now + request.state.settings.access_token_ttl * 1000)
        await forget_other_clients(transaction, principal.account.id, client)
        refresh_token = await end_other_sessions(transaction, request.state.token_keys, principal, expires_at)
        await request.state.sessions.forget_account(principal.account.id)
    audit.info("password changed", extra={"event": "password.changed"})
    if not tells:
        return Response(status_code=204)
    account = msgspec.structs.replace(principal.account, updated_at=utc(now))
    answer = json_response(tokens(request.state, account, principal.session_id, refresh_token))
    answer.headers["Preference-Applied"] = REPRESENTATION
    return answer


async def replace_hash(transaction: Connection, values: Mapping[str, object]) -> None:
    """Raises a 409 Problem when the account's password is another by now."""
    changed = await transaction.execute(
        "UPDATE accounts SET password_hash = :new_hash, updated_at = :now"
        " WHERE id = :account_id AND password_hash = :current_hash",
        values,
    )
    if not changed:
        raise Problem(409, "the password was changed by another request")


async def end_other_sessions(transaction: Connection, keys: TokenKeys, principal: Principal, expires_at: int) -> str:
    """The own session's new refresh token, which expires with it; every other one of the account is dead."""
    values = {"account_id": principal.account.id, "session_id": principal.session_id}
    await transaction.execute(
        "UPDATE sessions SET expires_at = :expires_at WHERE account_id = :account_id AND id = :session_id",
        values | {"expires_at": expires_at},
    )
    await transaction.execute("DELETE FROM sessions WHERE account_id = :account_id AND id <> :session_id", values)
    await transaction.execute(
        "DELETE FROM refresh_tokens WHERE account_id = :account_id", {"account_id": principal.account.id}
    )
    return await add_refresh_token(transaction, keys, principal.account.id, principal.session_id, expires_at)


async def check_own_password(request: Request, principal: Principal, new_password: str) -> None:
    """Raises a 422 Problem when it may not be the account's, whose name and address are read anew."""
    row = await request.state.database.fetch_one(
        "SELECT username, email, email_key FROM accounts WHERE id = :id", {"id": principal.account.id}
    )
    names = (*(row or ()), request.state.settings.name)
    all_right({"new_password": partial(check_new_password, new_password, names)})


async def confirm_password(request: Request, principal: Principal, password: str) -> str:
    """The account's password hash, when `password` is right; else a 403, or a 429 after too many."""
    state = request.state
    row = await state.database.fetch_one(
        "SELECT password_hash FROM accounts WHERE id = :id", {"id": principal.account.id}
    )
    if not row:
        raise Unauthorized("the account has been deleted", "invalid_token")
    [password_hash] = row
    client = client_network_of(request)
    async with state.limits.confirmation(principal.account.id, principal.session_id, client):
        if not await state.passwords.verify(password, password_hash, Who(client, known=True)):
            audit.warning("wrong password", extra={"event": "password.refused"})
            raise Problem(403, "the password is wrong")
    return str(password_hash)


def all_right(checks: Mapping[str, Callable[[], str]]) -> dict[str, str]:
    """What each field's check returns. Raises a 422 Problem that names every field whose check raises ValueError."""
    right, wrong = {}, []
    for field, check in checks.items():
        try:
            right[field] = check()
        except ValueError as error:
            wrong.append(FieldError(field, str(error)))
    if wrong:
        raise invalid_fields(wrong)
    return right
