"""The pool of connections to MySQL: nothing that happens to one of them costs a slot, a wait or a wrong answer."""

import asyncio
import time

import pytest

from infra.base.errors import Unavailable
from infra.sql.database import Database
from infra.sql.mysql_driver import MySQLDriver
from infra.sql.pool import Pool
from tests.conftest import StartService
from tests.faults.scenarios import (
    NEW_LOOP,
    Environment,
    both_slots_work,
    connection_id,
    connections,
    eventually,
    kill,
    kill_all,
    list_sessions,
    lose_connection,
    play,
    rename,
    settings_for,
)
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB


def test_killed_idle_connections_are_replaced_unseen(
    start_service: StartService, mariadb: MariaDB, mysql_env: Environment
) -> None:
    service = start_service(**mysql_env, MYSQL_POOL_MIN_SIZE=3)
    account = service.sign_up()
    for number in range(2):
        assert kill_all(mariadb, mysql_env) > 0
        assert list_sessions(service, account).status_code == 200
        kill_all(mariadb, mysql_env)
        assert rename(service, account, f"Renamed-{number}-{account.id[-6:]}").status_code == 200
        kill_all(mariadb, mysql_env)
        service.sign_up()


@pytest.mark.parametrize("loop", NEW_LOOP)
def test_connections_killed_inside_transactions_lose_no_slot(
    mariadb: MariaDB, mysql_env: Environment, loop: str
) -> None:
    async def scenario(database: Database) -> None:
        for _ in range(6):
            with pytest.raises(Unavailable):
                await lose_connection(database, mariadb)
        await both_slots_work(database)

    play(scenario, mysql_env, loop, MYSQL_POOL_MAX_SIZE=2)


def test_a_connection_killed_before_its_commit_is_an_error_and_loses_no_slot(
    mariadb: MariaDB, mysql_env: Environment
) -> None:
    async def scenario(database: Database) -> None:
        for _ in range(6):
            with pytest.raises(Unavailable):
                async with database.transaction() as transaction:
                    await asyncio.to_thread(kill, mariadb, await connection_id(transaction))
        await both_slots_work(database)

    play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=2)


@pytest.mark.parametrize("loop", NEW_LOOP)
def test_cancelled_queries_inside_transactions_lose_no_slot_and_raise_what_was_raised(
    mysql_env: Environment, loop: str
) -> None:
    async def sleep_in(database: Database) -> None:
        async with database.transaction() as transaction:
            await transaction.fetch_one("SELECT SLEEP(3)")

    async def scenario(database: Database) -> None:
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sleep_in(database), 0.05)
        await both_slots_work(database)

    play(scenario, mysql_env, loop, MYSQL_POOL_MAX_SIZE=2)


def test_queries_cancelled_while_they_wait_for_a_slot_or_connect_lose_none(
    mysql_env: Environment, mysql_proxy: Proxy
) -> None:
    async def scenario(database: Database) -> None:
        mysql_proxy.delay(0.02)
        for number in range(20):
            tasks = [asyncio.create_task(connection_id(database)) for _ in range(5)]
            await asyncio.sleep(number * 0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        mysql_proxy.delay(0)
        await both_slots_work(database)

    play(scenario, mysql_env, MYSQL_PORT=mysql_proxy.port, MYSQL_POOL_MAX_SIZE=2, MYSQL_POOL_MIN_SIZE=0)


def test_those_who_wait_for_a_connection_get_one_when_it_breaks(mariadb: MariaDB, mysql_env: Environment) -> None:
    async def hold_and_lose(database: Database, held: asyncio.Event) -> None:
        async with database.transaction() as transaction:
            number = await connection_id(transaction)
            held.set()
            await asyncio.sleep(0.2)
            await asyncio.to_thread(kill, mariadb, number)
            await transaction.fetch_one("SELECT 1")

    async def scenario(database: Database) -> float:
        held = asyncio.Event()
        holder = asyncio.create_task(hold_and_lose(database, held))
        await held.wait()
        started = time.monotonic()
        await asyncio.gather(*(database.fetch_one("SELECT 1") for _ in range(5)))
        with pytest.raises(Unavailable):
            await holder
        return time.monotonic() - started

    assert play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1) < 2


def test_a_child_task_may_use_the_transaction_that_it_was_given(mysql_env: Environment) -> None:
    async def scenario(database: Database) -> None:
        async with database.transaction() as transaction:
            outer = await connection_id(transaction)
            assert await asyncio.create_task(connection_id(transaction)) == outer

    play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1)


def test_the_pool_opens_its_minimum_at_once_and_never_more_than_its_maximum(
    mariadb: MariaDB, mysql_env: Environment
) -> None:
    async def scenario(database: Database) -> tuple[int, int]:
        at_start = len(await asyncio.to_thread(connections, mariadb, mysql_env))
        queries = asyncio.gather(*(database.fetch_one("SELECT SLEEP(0.2)") for _ in range(12)))
        await asyncio.sleep(0.3)
        at_most = len(await asyncio.to_thread(connections, mariadb, mysql_env))
        await queries
        return at_start, at_most

    assert play(scenario, mysql_env, MYSQL_POOL_MIN_SIZE=2, MYSQL_POOL_MAX_SIZE=4) == (2, 4)


def test_a_pool_that_can_not_open_all_of_its_minimum_keeps_none(mariadb: MariaDB, mysql_env: Environment) -> None:
    user, name = "two_at_most", mysql_env["MYSQL_DATABASE"]
    mariadb.sql(f"GRANT ALL ON {name}.* TO {user} IDENTIFIED BY %s WITH MAX_USER_CONNECTIONS 2", mariadb.password)

    async def main() -> None:
        pool = Pool(driver, settings, min_size=3)
        with pytest.raises(Unavailable):
            await pool.open()
        await asyncio.sleep(0.2)
        found = mariadb.sql("SELECT id FROM information_schema.processlist WHERE user = %s", user)
        assert (found, pool.size) == ([], 0)

    settings = settings_for({**mysql_env, "MYSQL_USERNAME": user})
    driver = MySQLDriver(settings, settings.mysql_host, settings.mysql_port)
    asyncio.run(main())


def test_a_connection_in_steady_use_is_replaced_when_it_is_old(mysql_env: Environment) -> None:
    async def scenario(database: Database) -> list[int]:
        seen = []
        for _ in range(12):
            seen.append(await connection_id(database))
            await asyncio.sleep(0.1)
        return seen

    seen = play(scenario, mysql_env, MYSQL_POOL_RECYCLE=0.5, MYSQL_POOL_MAX_SIZE=1)
    assert seen[0] == seen[1]
    assert 2 <= len(set(seen)) <= 4


def test_a_connection_in_steady_use_is_not_asked_whether_it_is_still_there(mysql_env: Environment) -> None:
    async def pings(database: Database) -> int:
        row = await database.fetch_one("SHOW SESSION STATUS LIKE 'Com_admin_commands'")
        assert row
        return int(row[1])

    async def scenario(database: Database) -> int:
        before = await pings(database)
        for _ in range(30):
            await database.fetch_one("SELECT 1")
        return await pings(database) - before

    assert play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1) < 5  # a machine may stand still for a second


def test_a_connection_that_the_server_closed_for_idleness_is_replaced_unseen(
    mariadb: MariaDB, mysql_env: Environment
) -> None:
    async def scenario(database: Database) -> None:
        before = await connection_id(database)
        await database.execute("SET wait_timeout = 1")
        await asyncio.sleep(1.5)
        assert not await asyncio.to_thread(connections, mariadb, mysql_env)
        assert await database.execute("UPDATE accounts SET updated_at = 0") == 0  # a write isn't tried twice
        assert await connection_id(database) != before
        await database.execute("SET wait_timeout = 1")
        await asyncio.sleep(1.5)
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE accounts SET updated_at = 0")

    play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=1)


def test_of_connections_that_hang_only_one_costs_a_request_its_time(mysql_env: Environment, mysql_proxy: Proxy) -> None:
    """As when a primary hangs, and a proxy in front of it keeps what is connected and leads elsewhere what connects."""

    async def scenario(database: Database) -> tuple[float, float]:
        await asyncio.gather(*(database.fetch_one("SELECT SLEEP(0.1)") for _ in range(5)))
        assert database.primary.size == 5
        mysql_proxy.hang()
        started = time.monotonic()
        with pytest.raises(Unavailable):
            await database.execute("UPDATE accounts SET updated_at = 0")
        lost = time.monotonic()
        for _ in range(5):
            await database.execute("UPDATE accounts SET updated_at = 0")
        return lost - started, time.monotonic() - lost

    first, others = play(
        scenario, mysql_env, MYSQL_PORT=mysql_proxy.port, MYSQL_POOL_MAX_SIZE=5, MYSQL_QUERY_TIMEOUT=0.3
    )
    assert first >= 0.3
    assert others < 2.5


def test_a_transaction_within_a_transaction_is_refused_and_the_first_goes_on(mysql_env: Environment) -> None:
    """MySQL would commit the first without a word."""

    async def scenario(database: Database) -> None:
        async with database.transaction() as outer:
            await outer.execute("UPDATE accounts SET updated_at = 0")
            with pytest.raises(RuntimeError, match="in a transaction already"):
                async with database.transaction():
                    pass
            assert await database.fetch_all("SELECT 1") == [(1,)]  # on a connection of its own
        await both_slots_work(database)

    play(scenario, mysql_env, MYSQL_POOL_MAX_SIZE=2)


def test_a_close_cuts_what_still_runs(mariadb: MariaDB, mysql_env: Environment) -> None:
    async def scenario(database: Database) -> float:
        running = asyncio.create_task(database.execute("DO SLEEP(15)"))
        assert await asyncio.to_thread(eventually, lambda: any(row["info"] for row in connections(mariadb, mysql_env)))
        started = time.monotonic()
        await database.close()
        with pytest.raises(Unavailable):
            await running
        return time.monotonic() - started

    assert play(scenario, mysql_env, MYSQL_QUERY_TIMEOUT=18) < 5
