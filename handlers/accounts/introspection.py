"""Introspection (RFC 7662): another service asks whether a token lives, and whose it is."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from handlers.accounts.principal import live_account
from handlers.accounts.state import AccountsState, Request
from handlers.accounts.tokens import refresh_token_hash
from infra.base.ids import Id
from infra.base.times import now_ms
from infra.http.operations import operation


class TokenForm(Struct):
    token: Annotated[str, Meta(description="an access token or a refresh token", examples=["eyJhbGciOiJIUzI1NiJ9..."])]


class Introspection(Struct):
    active: Annotated[bool, Meta(description="false: it doesn't live, and nothing else is told", examples=[True])]
    token_type: Annotated[Literal["Bearer"], Meta(description="of an access token only")] | UnsetType = UNSET
    sub: Annotated[Id, Meta(description="the account")] | UnsetType = UNSET
    username: Annotated[str, Meta(examples=["ada"])] | UnsetType = UNSET
    sid: Annotated[Id, Meta(description="the session")] | UnsetType = UNSET
    exp: Annotated[int, Meta(description="when it expires, in Unix seconds", examples=[1795510526])] | UnsetType = UNSET


@operation(bearer="events_token")
async def introspect(request: Request, form: TokenForm) -> Introspection:
    """Tell another service whether a token lives, and whose it is.

    A refresh token has no token_type: a service must not take one for an access token.
    """
    state = request.state
    access_token = state.token_keys.verify(form.token)
    if not access_token:
        return await introspect_refresh_token(state, form.token)
    account = await live_account(state, access_token)
    if not account:
        return Introspection(active=False)
    return Introspection(
        active=True,
        token_type="Bearer",  # noqa: S106
        sub=account.id,
        username=account.username,
        sid=access_token.session_id,
        exp=access_token.expires_at,
    )


async def introspect_refresh_token(state: AccountsState, token: str) -> Introspection:
    row = await state.database.fetch_one(
        "SELECT a.id, a.username, s.id, t.expires_at FROM refresh_tokens t"
        " JOIN sessions s ON s.account_id = t.account_id AND s.id = t.session_id"
        " JOIN accounts a ON a.id = t.account_id"
        " WHERE t.token_hash = :token_hash AND t.spent_at IS NULL AND t.expires_at > :now",
        {"token_hash": refresh_token_hash(token), "now": now_ms()},
    )
    if not row:
        return Introspection(active=False)
    account_id, username, session_id, expires_at = row
    return Introspection(active=True, sub=account_id, username=username, sid=session_id, exp=expires_at // 1000)
