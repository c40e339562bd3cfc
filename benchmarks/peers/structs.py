"""The bodies as msgspec Structs, for the frameworks that take them."""

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from parts import utc


class Account(Struct):
    id: str
    username: str
    email: str
    created_at: datetime
    updated_at: datetime


class Session(Struct):
    id: str
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    client: str
    user_agent: str
    current: bool


class Page(Struct):
    items: list[Session]
    next: str | None


class Tokens(Struct):
    access_token: str
    refresh_token: str
    account: Account
    token_type: str = "Bearer"
    expires_in: int = 900


class Login(Struct):
    login: Annotated[str, Meta(min_length=1, max_length=254)]
    password: Annotated[str, Meta(max_length=256)]


class Refresh(Struct):
    refresh_token: Annotated[str, Meta(max_length=256)]


decode = msgspec.json.Decoder(Account).decode


def account_of(row) -> Account:
    if isinstance(row, Account):
        return row
    return Account(row.id, row.username, row.email, utc(row.created_at), utc(row.updated_at))


def encode(row) -> bytes:
    return msgspec.json.encode(account_of(row))


def page_of(rows, session_id: str, limit: int) -> Page:
    items = [
        Session(
            row.id,
            utc(row.created_at),
            utc(row.last_used_at),
            utc(row.expires_at),
            row.client,
            row.user_agent,
            row.id == session_id,
        )
        for row in rows[:limit]
    ]
    return Page(items, items[-1].id if len(rows) > limit else None)
