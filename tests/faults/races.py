"""Two requests at the same instant, many times. Each race says what must hold whoever comes first."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from tests.faults.load import PASSWORD, Rows, ask, half_made, new_account, sign_up

Statuses = tuple[int, int]
Race = Callable[[int], Awaitable[tuple[Statuses, str]]]


async def run_race(race: Race, port: int, rounds: int, at_once: int = 8) -> tuple[Counter[Statuses], list[str]]:
    """How often each pair of statuses came, and what `race` remembers of each round."""
    statuses: Counter[Statuses] = Counter()
    remembered: list[str] = []

    async def play(share: int) -> None:
        for _ in range(share):
            pair, key = await race(port)
            statuses[pair] += 1
            remembered.append(key)

    await asyncio.gather(*(play(rounds // at_once) for _ in range(at_once)))
    return statuses, remembered


async def together(port: int, *requests: tuple[Any, ...]) -> Statuses:
    first, second = await asyncio.gather(*(ask(port, *request) for request in requests))
    return first.status_code, second.status_code


async def one_name_registered_twice(port: int) -> tuple[Statuses, str]:
    one, two = new_account(), new_account()
    two["username"] = one["username"].upper()
    pair = await together(port, ("POST", "/v1/auth/register", one), ("POST", "/v1/auth/register", two))
    return min(pair, pair[::-1]), one["username"]


async def one_refresh_token_spent_twice(port: int) -> tuple[Statuses, str]:
    tokens = await sign_up(port)
    spend = ("POST", "/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    pair = await together(port, spend, spend)
    return min(pair, pair[::-1]), tokens["account"]["id"]


async def log_out_while_refreshing(port: int) -> tuple[Statuses, str]:
    tokens = await sign_up(port)
    refresh = ("POST", "/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    pair = await together(port, ("POST", "/v1/auth/logout", None, tokens["access_token"]), refresh)
    return pair, tokens["account"]["id"]


async def change_the_password_while_logging_in(port: int) -> tuple[Statuses, str]:
    tokens = await sign_up(port)
    change = {"current_password": PASSWORD, "new_password": "another password"}
    log_in = ("POST", "/v1/auth/login", {"login": tokens["account"]["username"], "password": PASSWORD})
    pair = await together(port, ("PUT", "/v1/auth/me/password", change, tokens["access_token"]), log_in)
    return pair, tokens["account"]["id"]


async def delete_the_account_while_refreshing(port: int) -> tuple[Statuses, str]:
    tokens = await sign_up(port)
    refresh = ("POST", "/v1/auth/refresh", {"refresh_token": tokens["refresh_token"]})
    delete = ("DELETE", "/v1/auth/me", {"password": PASSWORD}, tokens["access_token"])
    return await together(port, delete, refresh), tokens["account"]["id"]


def sessions_left(rows: Rows, accounts: list[str]) -> int:
    found = Counter(row[0] for row in rows("SELECT account_id FROM sessions"))
    return sum(found[account] for account in accounts)


def check_one_name(statuses: Counter[Statuses], names: list[str], rows: Rows) -> None:
    """One of the two has the name, whoever it is."""
    assert set(statuses) == {(201, 409)}, statuses
    found = Counter(row[0] for row in rows("SELECT username_key FROM accounts"))
    assert {found[name] for name in names} == {1}


def check_one_token(statuses: Counter[Statuses], accounts: list[str], rows: Rows) -> None:
    """One gets a new pair, the other is told that the session has ended, and it has: either may be the thief."""
    assert set(statuses) == {(200, 401)}, statuses
    assert (sessions_left(rows, accounts), half_made(rows)) == (0, 0)


def check_log_out(statuses: Counter[Statuses], accounts: list[str], rows: Rows) -> None:
    """Whoever comes first, the session has ended, and so has what was refreshed."""
    assert set(statuses) <= {(204, 200), (204, 401)}, statuses
    assert (sessions_left(rows, accounts), half_made(rows)) == (0, 0)


def check_password(statuses: Counter[Statuses], accounts: list[str], rows: Rows) -> None:
    """No session that the old password opened is left: only the one that changed it."""
    assert set(statuses) <= {(204, 200), (204, 401)}, statuses
    assert (sessions_left(rows, accounts), half_made(rows)) == (len(accounts), 0)


def check_deletion(statuses: Counter[Statuses], accounts: list[str], rows: Rows) -> None:
    """Nothing of a deleted account is left."""
    assert set(statuses) <= {(204, 200), (204, 401)}, statuses
    assert not {row[0] for row in rows("SELECT id FROM accounts")} & set(accounts)
    assert (sessions_left(rows, accounts), half_made(rows)) == (0, 0)


RACES: dict[Race, Callable[[Counter[Statuses], list[str], Rows], None]] = {
    one_name_registered_twice: check_one_name,
    one_refresh_token_spent_twice: check_one_token,
    log_out_while_refreshing: check_log_out,
    change_the_password_while_logging_in: check_password,
    delete_the_account_while_refreshing: check_deletion,
}
