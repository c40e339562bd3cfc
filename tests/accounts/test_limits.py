"""Limits beside those of log-ins: on names, refreshes, sessions and wrong tokens."""

import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest

from tests.conftest import EVENTS_TOKEN, TEST_SETTINGS, Sql, StartService, backend_settings
from tests.faults.load import QuickService
from tests.support.service import Account, Service

KEY = "a key that is known to this test alone"
LIMITS = {
    "REGISTER_RATE_LIMIT": "3/60",
    "REFRESH_RATE_LIMIT": "25/60",
    "MAX_SESSIONS": "3",
    "SESSION_MAX_AGE": "1000",
    "LOGIN_RATE_LIMIT": "1/60",
    "METRICS_TOKEN": "a-token-of-the-scraper",
    "EVENTS_TOKEN": EVENTS_TOKEN,
    "SECRET_KEY": KEY,
}
ADDRESSES = (f"198.51.{high}.{low}" for high in itertools.count() for low in range(256))
NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def limited(backend: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Shared: each test comes from addresses of its own."""
    with QuickService({**TEST_SETTINGS, **LIMITS, **backend_settings(backend, request)}) as service:
        yield service


@pytest.fixture
def client() -> str:
    return next(ADDRESSES)


@pytest.fixture
def member(limited: Service) -> Account:
    name = f"member-{next(NUMBERS)}"
    assert register(limited, name, next(ADDRESSES)) == 201
    return log_in(limited, name)


def log_in(service: Service, name: str) -> Account:
    answer = ask(service, "POST", "/v1/auth/login", next(ADDRESSES), {"login": name, "password": "a long password"})
    tokens = answer.json()
    account_id, email = tokens["account"]["id"], tokens["account"]["email"]
    return Account(account_id, name, email, "a long password", tokens["access_token"], tokens["refresh_token"])


def ask(
    service: Service, method: str, path: str, client: str, body: object = None, *, token: str = ""
) -> httpx.Response:
    """From this address, as a proxy on loopback tells it."""
    headers = {"X-Forwarded-For": client} | ({"Authorization": f"Bearer {token}"} if token else {})
    return service.client.request(method, path, json=body, headers=headers)


def register(service: Service, name: str, client: str, email: str = "") -> int:
    body = {"username": name, "email": email or f"{name}@example.com", "password": "a long password"}
    return ask(service, "POST", "/v1/auth/register", client, body).status_code


def refresh(service: Service, token: str, client: str = "192.0.2.1") -> httpx.Response:
    return ask(service, "POST", "/v1/auth/refresh", client, {"refresh_token": token})


def me(service: Service, token: str, client: str = "192.0.2.1") -> int:
    return ask(service, "GET", "/v1/auth/me", client, token=token).status_code


# Names: who has an account


def test_an_address_may_ask_for_so_many_names_whether_they_are_taken_or_free(
    limited: Service, member: Account, client: str
) -> None:
    taken = register(limited, member.username, client, email=f"free@{client}.example.com")
    taken_email = register(limited, f"free-{next(NUMBERS)}", client, email=member.email)
    free = register(limited, f"free-{next(NUMBERS)}", client)
    assert [taken, taken_email, free] == [409, 409, 201]
    body = {"username": member.username, "email": "x@example.com", "password": "a long password"}
    refused = ask(limited, "POST", "/v1/auth/register", client, body)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert rename(limited, member, client, {"username": "x" * 20}).status_code == 429
    assert register(limited, member.username, next(ADDRESSES)) == 409


def test_a_registration_that_is_written_wrongly_tells_nothing_and_is_not_counted(limited: Service, client: str) -> None:
    assert [register(limited, "no name", client) for _ in range(5)] == [422] * 5
    assert register(limited, f"free-{next(NUMBERS)}", client) == 201


def test_an_account_may_ask_for_so_many_names_from_wherever(limited: Service, member: Account) -> None:
    other = f"other-{next(NUMBERS)}"
    assert register(limited, other, next(ADDRESSES)) == 201

    changes = [{"username": other}, {"email": f"{other}@example.com"}, {"username": f"free-{next(NUMBERS)}"}]
    statuses = [rename(limited, member, next(ADDRESSES), change).status_code for change in changes]
    assert statuses == [409, 409, 200]
    assert rename(limited, member, next(ADDRESSES), {"username": other}).status_code == 429
    assert me(limited, member.access_token) == 200


def rename(service: Service, member: Account, client: str, change: dict[str, str]) -> httpx.Response:
    body = change | {"current_password": member.password}
    return ask(service, "PATCH", "/v1/auth/me", client, body, token=member.access_token)


def test_an_ipv6_site_may_ask_for_eight_times_as_many(start_service: StartService) -> None:
    service = start_service(REGISTER_RATE_LIMIT="1/60")
    assert [register(service, f"crew-{n}", f"2001:db8:7:{n:x}::1") for n in range(9)] == [201] * 8 + [429]
    assert register(service, "crew-8", "2001:db8:8::1") == 201
    assert register(service, "crew-9", "2001:db8:8::2") == 429


# Sessions and their refresh tokens


def refreshed(service: Service, account: Account, times: int) -> list[str]:
    """Its refresh tokens, one spent after another; the last one isn't."""
    tokens = [account.refresh_token]
    for _ in range(times):
        tokens.append(refresh(service, tokens[-1]).json()["refresh_token"])
    return tokens


def test_a_session_is_refreshed_so_often_and_keeps_the_last_few_spent_tokens(
    limited: Service, member: Account, sql: Sql
) -> None:
    tokens = [member.refresh_token]
    for _ in range(25):
        tokens.append(refresh(limited, tokens[-1]).json()["refresh_token"])
        rows = sql(limited, f"SELECT spent_at FROM refresh_tokens WHERE session_id = '{member.session_id}'")
        assert len(rows) <= 11
    assert len([row for row in rows if row["spent_at"] is None]) == 1
    refused = refresh(limited, tokens[-1])
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert me(limited, member.access_token) == 200
    rows = sql(limited, f"SELECT 1 FROM refresh_tokens WHERE session_id = '{member.session_id}' AND spent_at IS NULL")
    assert len(rows) == 1  # the one that was refused


@pytest.mark.parametrize("spent", [0, 3, 10, 14])
def test_a_spent_token_ends_its_session_whether_its_row_is_still_kept_or_not(
    limited: Service, member: Account, spent: int
) -> None:
    """A thief who refreshes again and again would else be found out by nobody."""
    tokens = refreshed(limited, member, 15)
    refused = refresh(limited, tokens[spent])
    assert (refused.status_code, "was used before" in refused.json()["detail"]) == (401, True)
    assert me(limited, member.access_token) == 401
    assert refresh(limited, tokens[-1]).status_code == 401


def test_a_token_that_was_changed_ends_nothing(limited: Service, member: Account) -> None:
    token = member.refresh_token
    for place in (10, 30, 60, 90, len(token) - 3):
        changed = f"{token[:place]}{'A' if token[place] != 'A' else 'B'}{token[place + 1 :]}"
        assert refresh(limited, changed).status_code == 401
    assert refresh(limited, f"{token}=").status_code == 401
    assert me(limited, member.access_token) == 200
    assert refresh(limited, token).status_code == 200


def test_the_limit_of_one_session_is_not_that_of_another(limited: Service, member: Account) -> None:
    token = refreshed(limited, member, 25)[-1]
    assert refresh(limited, token).status_code == 429
    assert refresh(limited, log_in(limited, member.username).refresh_token).status_code == 200


def test_the_session_that_was_unused_longest_makes_room(limited: Service, member: Account) -> None:
    second, third = (log_in(limited, member.username) for _ in range(2))
    assert me(limited, member.access_token) == me(limited, second.access_token) == 200
    newer = refresh(limited, member.refresh_token).json()
    fourth = log_in(limited, member.username)
    alive = [me(limited, one) for one in (newer["access_token"], third.access_token, fourth.access_token)]
    assert alive == [200, 200, 200]
    assert me(limited, second.access_token) == 401
    assert refresh(limited, second.refresh_token).status_code == 401
    limited.wait_for_log(event="session.displaced", session_id=second.session_id, account_id=member.id)


def test_of_too_many_sessions_the_expired_ones_go_first_and_all_that_are_too_many(
    limited: Service, member: Account, sql: Sql
) -> None:
    """As many as the setting allowed before."""
    now = int(time.time() * 1000)
    rows = [(now - 1, now + 5), *((now + 10**7, number) for number in range(9))]
    values = ", ".join(f"('{member.id}', '{uuid4()}', 1, {used}, {ends}, '', '')" for ends, used in rows)
    columns = "account_id, id, created_at, last_used_at, expires_at, client, user_agent"
    sql(limited, f"INSERT INTO sessions ({columns}) VALUES {values}")
    newest = log_in(limited, member.username)
    left = sql(limited, f"SELECT id, last_used_at FROM sessions WHERE account_id = '{member.id}'")
    assert len(left) == 3
    assert {row["last_used_at"] for row in left if row["last_used_at"] < 100} == {8}
    assert {member.session_id, newest.session_id} < {row["id"] for row in left}


def test_a_session_ends_at_its_age_however_often_it_is_refreshed(limited: Service, member: Account, sql: Sql) -> None:
    where = f"id = '{member.session_id}'"
    [row] = sql(limited, f"SELECT created_at, expires_at FROM sessions WHERE {where}")
    assert row["expires_at"] == row["created_at"] + 1_000_000
    born = row["created_at"] - 990_000
    sql(limited, f"UPDATE sessions SET created_at = {born} WHERE {where}")
    newer = refresh(limited, member.refresh_token).json()["refresh_token"]
    for table, key in (("sessions", "id"), ("refresh_tokens", "session_id")):
        found = sql(limited, f"SELECT MAX(expires_at) AS ends FROM {table} WHERE {key} = '{member.session_id}'")
        assert table == "refresh_tokens" or found[0]["ends"] == born + 1_000_000
    sql(limited, f"UPDATE sessions SET created_at = {born - 10_001} WHERE {where}")
    assert refresh(limited, newer).status_code == 401


# Wrong tokens


GUESSES: dict[str, tuple[Callable[..., httpx.Response], int]] = {
    "access token": (lambda s, c: ask(s, "GET", "/v1/auth/me", c, token=f"a.{uuid4().hex}.c"), 20),
    "refresh token": (lambda s, c: refresh(s, f"brt_{secrets.token_urlsafe(32)}", c), 20),
    "metrics": (lambda s, c: ask(s, "GET", "/metrics", c, token=uuid4().hex), 200),
    "events": (lambda s, c: ask(s, "POST", "/v1/events", c, {}, token=uuid4().hex), 200),
}
RIGHT: dict[str, Callable[..., int]] = {
    "access token": lambda s, c, member: me(s, member.access_token, c),
    "refresh token": lambda s, c, member: refresh(s, member.refresh_token, c).status_code,
    "metrics": lambda s, c, _: ask(s, "GET", "/metrics", c, token=LIMITS["METRICS_TOKEN"]).status_code,
    "events": lambda s, c, _: ask(s, "POST", "/v1/events", c, {}, token=EVENTS_TOKEN).status_code,
}


@pytest.mark.parametrize("kind", GUESSES)
def test_wrong_tokens_are_limited_per_address(limited: Service, member: Account, client: str, kind: str) -> None:
    guess, most = GUESSES[kind]
    statuses = [guess(limited, client).status_code for _ in range(most + 2)]
    assert statuses == [401] * most + [429] * 2
    assert 1 <= int(guess(limited, client).headers["retry-after"]) <= 60
    assert guess(limited, next(ADDRESSES)).status_code == 401
    right = RIGHT[kind](limited, client, member)
    assert (right == 429) == (kind in ("metrics", "events"))  # those are guessed, ours have 256 random bits


def test_a_service_that_has_shown_its_token_is_not_kept_out_by_what_shares_its_address(
    limited: Service, member: Account, client: str
) -> None:
    assert RIGHT["metrics"](limited, client, member) == 200
    guess, most = GUESSES["metrics"]
    assert {guess(limited, client).status_code for _ in range(most + 1)} == {401, 429}
    assert RIGHT["metrics"](limited, client, member) == 200


def test_an_access_token_of_ours_that_has_expired_is_no_guess(limited: Service, member: Account, client: str) -> None:
    claims = jwt.decode(member.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(member.access_token)
    expired = [jwt.encode(claims | {"exp": 1000 + n}, KEY, headers=header) for n in range(25)]
    assert {me(limited, token, client) for token in expired} == {401}


def test_wrong_tokens_are_told_in_one_line_per_address_and_minute_with_a_count(limited: Service, client: str) -> None:
    for number in range(12):
        GUESSES["refresh token" if number % 3 else "access token"][0](limited, client)
    line = limited.wait_for_log(event="token.refused", client=client)
    assert (line["count"], line["kinds"], line["severity"]) == (12, "access token, refresh token", "WARNING")
    assert "account_id" not in line
    assert "trace_id" not in line
    GUESSES["metrics"][0](limited, client)
    time.sleep(2.5)
    assert len(limited.log(event="token.refused", client=client)) == 1


def test_what_was_not_told_yet_is_told_at_the_end(start_service: StartService) -> None:
    service = start_service(LOGIN_RATE_LIMIT="1/60")
    for _ in range(3):
        refresh(service, f"brt_{secrets.token_urlsafe(32)}")
    body: dict[str, Any] = {"login": "nobody-here", "password": "wrong one"}
    assert [ask(service, "POST", "/v1/auth/login", "192.0.2.3", body).status_code for _ in range(4)] == [
        401,
        *[429] * 3,
    ]
    service.stop()
    counts = {line["event"]: (line["client"], line["count"]) for line in service.log(type="audit") if "count" in line}
    assert counts == {"token.refused": ("192.0.2.1", 3), "login.limited": ("192.0.2.3", 3)}
