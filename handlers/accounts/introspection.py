"""Introspection (RFC 7662): another service asks whether an access token lives, and whose it is."""

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from handlers.accounts.principal import live_account
from handlers.accounts.state import Request
from infra.base.ids import Id
from infra.http.operations import operation


class TokenForm(Struct):
    token: Annotated[str, Meta(description="an access token", examples=["eyJhbGciOiJIUzI1NiJ9..."])]


class Introspection(Struct):
    active: Annotated[bool, Meta(description="false: it doesn't live, and nothing else is told", examples=[True])]
    token_type: Literal["Bearer"] | UnsetType = UNSET
    sub: Annotated[Id, Meta(description="the account")] | UnsetType = UNSET
    username: Annotated[str, Meta(examples=["ada"])] | UnsetType = UNSET
    sid: Annotated[Id, Meta(description="the session")] | UnsetType = UNSET
    exp: Annotated[int, Meta(description="when it expires, in Unix seconds", examples=[1795510526])] | UnsetType = UNSET


@operation(bearer="events_token")
async def introspect(request: Request, form: TokenForm) -> Introspection:
    """Tell another service whether an access token lives, and whose it is.

    A refresh token is not active: a service must not take one for an access token.
    """
    state = request.state
    access_token = state.token_keys.verify(form.token)
    account = access_token and await live_account(state, access_token, may_be_cached=True)
    if not access_token or not account:
        return Introspection(active=False)
    return Introspection(
        active=True,
        token_type="Bearer",  # noqa: S106
        sub=account.id,
        username=account.username,
        sid=access_token.session_id,
        exp=access_token.expires_at,
    )
