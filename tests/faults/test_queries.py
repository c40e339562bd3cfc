"""Queries that take too long, break off, or are refused by MySQL: a 503 each, and the next one is whole."""

import asyncio
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import httpx
import pytest

from infra.base.errors import Unavailable
from infra.sql.database import Database
from tests.conftest import StartService
from tests.faults.scenarios import (
    NEW_LOOP,
    Environment,
    both_slots_work,
    check_unavailable,
    connection_id,
    connections,
    eventually,
    list_sessions,
    locked_row,
    play,
    rename,
)
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB, free_port


def test_a_request_that_finds_no_free_connection_in_time_is_answered_503(
    start_service: StartService, mariadb: MariaDB, mysql_env: Environment
) -> None:
    service = start_service(**mysql_env, MYSQL_POOL_MAX_SIZE=1, MYSQL_POOL_TIMEOUT=0.3)
    account = service.sign_up()
    answers: list[int] = []
    holder = threading.Thread(target=lambda: answers.append(rename(service, account, "Holder-1").status_code))
    with locked_row(mariadb, mysql_env, account.id):
        holder.start()
        assert eventually(lambda: any("UPDATE" in (row["info"] or "") for row in connections(mariadb, mysql_env)))
        started = time.monotonic()
        check_unavailable(list_sessions(service, account))
        assert 0.25 < time.monotonic() - started < 2
    holder.join(10)
    assert answers == [200]
    assert list_sessions(service, account).status_code == 200


def test_a_query_that_takes_too_long_is_answered_503_and_stopped_at_the_server_too(
    start_service: StartService, mariadb: MariaDB, mysql_env: Environment
) -> None:
    service = start_service(**mysql_env, MYSQL_POOL_MAX_SIZE=2, MYSQL_QUERY_TIMEOUT=0.5)
    account = service.sign_up()
    with locked_row(mariadb, mysql_env, account.id):
        for _ in range(3):
            started = time.monotonic()
            check_unavailable(rename(service, account, "Too-late"))
            assert time.monotonic() - started < 2
        assert eventually(lambda: not any(row["info"] for row in connections(mariadb, mysql_env)), within=2)
        assert list_sessions(service, account).status_code == 200
    assert rename(service, account, "In-time").status_code == 200


def test_a_session_has_the_limits_that_stop_a_forgotten_statement(mysql_env: Environment) -> None:
    async def scenario(database: Database) -> Any:
        return await database.fetch_one("SELECT @@max_statement_time, @@innodb_lock_wait_timeout, @@time_zone")

    seconds, lock_seconds, zone = play(scenario, mysql_env, MYSQL_QUERY_TIMEOUT=1.5)
    assert (float(seconds), lock_seconds, zone) == (1.5, 2, "+00:00")


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_query(
    mysql_env: Environment, mysql_proxy: Proxy
) -> None:
    async def scenario(database: Database) -> None:
        before = await connection_id(database)
        mysql_proxy.stall()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await database.fetch_one("SELECT 'late'")
        mysql_proxy.resume()
        assert await database.fetch_one("SELECT 'next'") == ("next",)
        assert await connection_id(database) != before

    times: Environment = {"MYSQL_QUERY_TIMEOUT": 0.5, "MYSQL_CONNECT_TIMEOUT": 1}
    play(scenario, mysql_env, MYSQL_PORT=mysql_proxy.port, MYSQL_POOL_MAX_SIZE=1, **times)


def test_an_answer_cut_in_two_is_an_error_and_the_next_query_is_whole(
    mysql_env: Environment, mysql_proxy: Proxy
) -> None:
    async def scenario(database: Database) -> None:
        for size in (0, 1, 4, 5, 30, 90):
            mysql_proxy.truncate(size)
            with suppress(Unavailable):  # a read is tried once more
                assert await database.fetch_one("SELECT REPEAT('x', 100)") == ("x" * 100,)
            assert await database.fetch_one("SELECT REPEAT('y', 100)") == ("y" * 100,)
        await both_slots_work(database)

    play(scenario, mysql_env, MYSQL_PORT=mysql_proxy.port, MYSQL_POOL_MAX_SIZE=2)


@pytest.mark.parametrize("loop", NEW_LOOP)
def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(mysql_env: Environment, loop: str) -> None:
    async def scenario(_: Database) -> None:
        raise AssertionError

    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            play(scenario, mysql_env, loop, MYSQL_PORT=silent.getsockname()[1], MYSQL_CONNECT_TIMEOUT=0.3)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("minimum", [0, 1])
def test_a_pool_does_not_open_on_a_server_that_is_not_there(mysql_env: Environment, minimum: int) -> None:
    async def scenario(_: Database) -> None:
        raise AssertionError

    with pytest.raises(Unavailable):
        play(scenario, mysql_env, MYSQL_PORT=free_port(), MYSQL_POOL_MIN_SIZE=minimum)


def test_a_silent_server_does_not_hold_up_the_exit(
    start_service: StartService, mariadb: MariaDB, mysql_env: Environment
) -> None:
    service = start_service(**mysql_env, SHUTDOWN_TIMEOUT=0.5)
    account = service.sign_up()

    def ask() -> None:
        with suppress(httpx.TransportError):
            rename(service, account, "Held")

    holder = threading.Thread(target=ask)
    with locked_row(mariadb, mysql_env, account.id):
        holder.start()
        assert eventually(lambda: any("UPDATE" in (row["info"] or "") for row in connections(mariadb, mysql_env)))
        assert service.stop(within=5) == 0
    holder.join(10)


def test_an_answer_that_can_not_be_read_is_not_left_for_the_next_query(mysql_env: Environment) -> None:
    async def scenario(database: Database) -> None:
        await database.execute("SET character_set_results = NULL")
        with pytest.raises(UnicodeDecodeError):
            await database.fetch_all("SELECT _latin1 X'E4' UNION ALL SELECT _latin1 'left behind'")
        assert await database.fetch_one("SELECT 'next'") == ("next",)

    play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1)


def test_of_two_transactions_in_a_deadlock_one_is_a_503_and_the_other_goes_on(mysql_env: Environment) -> None:
    async def update(database: Database, met: asyncio.Barrier, first: str, second: str) -> None:
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE accounts SET updated_at = 1 WHERE id = :id", {"id": first})
            await met.wait()
            await transaction.execute("UPDATE accounts SET updated_at = 1 WHERE id = :id", {"id": second})

    async def scenario(database: Database) -> None:
        for name in "ab":
            await database.execute(
                "INSERT INTO accounts VALUES (:name, :name, :name, :name, :name, 'hash', 0, 0, NULL)", {"name": name}
            )
        met = asyncio.Barrier(2)
        ends = await asyncio.gather(
            update(database, met, "a", "b"), update(database, met, "b", "a"), return_exceptions=True
        )
        [refused] = [end for end in ends if end]
        assert isinstance(refused, Unavailable)
        assert "1213" in refused.cause
        await both_slots_work(database)

    play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=2)


def test_a_wait_for_a_lock_that_the_server_ends_is_a_503(mariadb: MariaDB, mysql_env: Environment) -> None:
    async def scenario(database: Database) -> None:
        await database.execute("SET innodb_lock_wait_timeout = 1")
        with pytest.raises(Unavailable) as refused:
            await database.execute("UPDATE accounts SET updated_at = 1")
        assert "1205" in refused.value.cause

    mariadb.sql(
        "INSERT INTO accounts VALUES ('a', 'a', 'a', 'a', 'a', 'hash', 0, 0, NULL)",
        database=mysql_env["MYSQL_DATABASE"],
    )
    with locked_row(mariadb, mysql_env, "a"):
        play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1)
