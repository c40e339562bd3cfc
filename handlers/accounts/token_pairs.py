"""What a client goes on with: an access token, and the refresh token that the next pair is for."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from handlers.accounts.principal import Account
from handlers.accounts.state import AccountsState
from handlers.accounts.tokens import TokenKeys, refresh_token_hash
from infra.sql.database import Connection

RefreshToken = Annotated[
    str,
    Meta(max_length=256, description="a refresh token", examples=["brt_8OUWS853XymIJEfhSYgXqYlJLrx0X2dpC52Q6kEyjk0"]),
]


class Tokens(Struct):
    """RFC 6749, section 5.1, and the account."""

    access_token: Annotated[
        str, Meta(description="a JWT", examples=["eyJhbGciOiJIUzI1NiIsImtpZCI6IjRkMWEyYjNjIn0.e30.c2ln"])
    ]
    refresh_token: RefreshToken
    token_type: Literal["Bearer"]
    expires_in: Annotated[int, Meta(description="seconds", examples=[900])]
    account: Account


async def add_refresh_token(
    transaction: Connection, keys: TokenKeys, account_id: str, session_id: str, expires_at: int
) -> str:
    """The new token of a session, which lives as long as its newest one."""
    token = keys.new_refresh_token(account_id, session_id)
    await transaction.execute(
        "INSERT INTO refresh_tokens (token_hash, account_id, session_id, expires_at)"
        " VALUES (:token_hash, :account_id, :session_id, :expires_at)",
        {
            "token_hash": refresh_token_hash(token),
            "account_id": account_id,
            "session_id": session_id,
            "expires_at": expires_at,
        },
    )
    return token


def tokens(state: AccountsState, account: Account, session_id: str, refresh_token: str) -> Tokens:
    access_token = state.token_keys.issue(account.id, session_id)
    return Tokens(access_token, refresh_token, "Bearer", state.token_keys.ttl, account)
