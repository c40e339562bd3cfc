"""The clean-up: what has expired goes, nothing else does, and never more than a batch in one statement."""

import time
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from tests.conftest import EVENTS_TOKEN, TEST_SETTINGS, Sql, backend_settings
from tests.faults.load import QuickService
from tests.support.service import Service

PURGE = "dev.berth.sessions.purge"
BATCH = 500  # rows
NUMBERS = count(1)
INSERTS = {
    "sessions": "INSERT INTO sessions (account_id, id, created_at, last_used_at, expires_at, client, user_agent)"
    " VALUES ('{id}', '{id}', 1, 1, {ends}, '', '')",
    "refresh_tokens": "INSERT INTO refresh_tokens (token_hash, account_id, session_id, expires_at)"
    " VALUES ('{id}', '{id}', '{id}', {ends})",
    "known_clients": "INSERT INTO known_clients (account_id, network, expires_at) VALUES ('{id}', '{id}', {ends})",
    "received_events": "INSERT INTO received_events (event_key, expires_at) VALUES ('{id}', {ends})",
}
KEYS = {"sessions": "id", "refresh_tokens": "token_hash", "known_clients": "network", "received_events": "event_key"}
EVERY_TABLE = pytest.mark.parametrize("table", INSERTS)


@pytest.fixture(scope="module")
def service(backend: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Its clean-up may take what it finds: no other test's rows are there."""
    env = {**TEST_SETTINGS, **backend_settings(backend, request), "EVENTS_TOKEN": EVENTS_TOKEN}
    with QuickService(env) as own:
        yield own


def purge(service: Service) -> None:
    headers = {"ce-specversion": "1.0", "ce-id": f"purge-{next(NUMBERS)}", "ce-source": "/tests", "ce-type": PURGE}
    answer = service.client.post("/v1/events", headers={"Authorization": f"Bearer {EVENTS_TOKEN}", **headers})
    assert answer.status_code == 204


def add(service: Service, sql: Sql, table: str, left: int) -> str:
    """A row that expires so many milliseconds from now; its key."""
    key = f"row-{next(NUMBERS)}"
    sql(service, INSERTS[table].format(id=key, ends=int(time.time() * 1000) + left))
    return key


def keys(service: Service, sql: Sql, table: str) -> set[str]:
    return {str(row["key_"]) for row in sql(service, f"SELECT {KEYS[table]} AS key_ FROM {table}")}


def refresh(service: Service, token: str) -> httpx.Response:
    return service.client.post("/v1/auth/refresh", json={"refresh_token": token})


@EVERY_TABLE
def test_a_row_is_taken_when_it_has_expired_and_not_a_minute_early(service: Service, sql: Sql, table: str) -> None:
    over, almost, long = (add(service, sql, table, left) for left in (-1, 50_000, 10_000_000))
    purge(service)
    left = keys(service, sql, table)
    assert (over in left, almost in left, long in left) == (False, True, True)


@EVERY_TABLE
def test_what_expires_in_one_table_takes_nothing_of_the_others_along(service: Service, sql: Sql, table: str) -> None:
    kept = {other: add(service, sql, other, 10_000_000) for other in INSERTS if other != table}
    add(service, sql, table, -1)
    purge(service)
    assert all(key in keys(service, sql, other) for other, key in kept.items())


def test_a_spent_refresh_token_is_known_until_it_expires(service: Service) -> None:
    account = service.sign_up()
    newer = refresh(service, account.refresh_token).json()["refresh_token"]
    purge(service)
    assert refresh(service, account.refresh_token).status_code == 401  # its reuse is seen
    assert refresh(service, newer).status_code == 401


def test_spent_tokens_of_a_session_that_lives_are_taken_once_they_expire(service: Service, sql: Sql) -> None:
    account = service.sign_up()
    newer = refresh(service, account.refresh_token).json()["refresh_token"]
    sql(service, f"UPDATE refresh_tokens SET expires_at = 1 WHERE account_id = '{account.id}' AND spent_at IS NOT NULL")
    purge(service)
    rows = sql(service, f"SELECT spent_at FROM refresh_tokens WHERE account_id = '{account.id}'")
    assert [row["spent_at"] for row in rows] == [None]
    assert refresh(service, newer).status_code == 200


def test_an_account_all_of_whose_sessions_have_expired_stays(service: Service, sql: Sql) -> None:
    account = service.sign_up()
    for table in ("sessions", "refresh_tokens"):
        sql(service, f"UPDATE {table} SET expires_at = 1 WHERE account_id = '{account.id}'")
    purge(service)
    assert service.log_in(account.username, account.password).id == account.id


@EVERY_TABLE
@pytest.mark.parametrize("number", [BATCH, BATCH + 1, 2 * BATCH + 1])
def test_all_are_taken_however_many_and_counted(service: Service, sql: Sql, table: str, number: int) -> None:
    purge(service)
    add_many(service, sql, table, number)
    left = add(service, sql, table, 10_000_000)
    purge(service)
    found = keys(service, sql, table)
    assert left in found
    assert not any(key.startswith("many-") for key in found)
    service.wait_for_log(type="task", **{table: number})


def add_many(service: Service, sql: Sql, table: str, number: int) -> None:
    statement, _, values = INSERTS[table].partition(" VALUES ")
    rows = (values.format(id=f"many-{one}", ends=one // 300) for one in range(number))
    sql(service, f"{statement} VALUES {', '.join(rows)}")


@pytest.mark.parametrize("backend", ["mysql+redis"], indirect=True)
@EVERY_TABLE
def test_a_statement_takes_a_batch_at_most(service: Service, sql: Sql, table: str) -> None:
    """A trigger writes down when each row went: MariaDB's NOW() is that of the statement."""
    purge(service)
    sql(service, "CREATE TABLE gone (at DATETIME(6))")
    sql(service, f"CREATE TRIGGER count_{table} AFTER DELETE ON {table} FOR EACH ROW INSERT INTO gone VALUES (NOW(6))")
    try:
        add_many(service, sql, table, 2 * BATCH + 1)
        purge(service)
        batches = [row["number"] for row in sql(service, "SELECT COUNT(*) AS number FROM gone GROUP BY at ORDER BY at")]
    finally:
        sql(service, "DROP TABLE gone")
        sql(service, f"DROP TRIGGER count_{table}")
    assert batches == [BATCH, BATCH, 1]
