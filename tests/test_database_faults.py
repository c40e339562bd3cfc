"""What can go wrong between Berth and MySQL, played through a real server and a wire that breaks."""

import asyncio
import socket
import statistics
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pymysql
import pytest
import uvloop

from infra.database import Connection, Database, open_database
from infra.problems import Unavailable
from settings import Settings, load
from tests.conftest import TEST_SETTINGS, StartService
from tests.proxy import Proxy
from tests.servers import MariaDB, free_port
from tests.service import Account, Service, run_app

Environment = dict[str, Any]
Result = TypeVar("Result")
Scenario = Callable[[Database], Awaitable[Result]]
NEW_LOOP = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def env(mariadb: MariaDB, migrated: str) -> Environment:
    """A fresh database on the shared server; tests here kill only that database's connections."""
    return mariadb.environment(mariadb.create_database(like=migrated))


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    proxy = Proxy(mariadb.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def own() -> Iterator[MariaDB]:
    """A server that tests here may stop and reconfigure; each leaves it running."""
    with MariaDB() as server:
        yield server


@pytest.fixture
def own_env(own: MariaDB) -> Environment:
    return migrate(own.environment(own.create_database()))


def migrate(env: Environment) -> Environment:
    done = run_app("migrate", env={**TEST_SETTINGS, **env})
    assert done.returncode == 0, done.stdout + done.stderr
    return env


def settings_for(env: Environment, **more: object) -> Settings:
    given = {"SYS_ENV": "test", "SECRET_KEY": "k" * 32, **env, **more}
    return load({name: str(value) for name, value in given.items()})


def play(
    scenario: Scenario[Result], env: Environment, loop: str = "uvloop", within: float = 20, **more: object
) -> Result:
    """Runs the scenario on an open database, and fails when it hangs, or when closing does."""

    async def main() -> Result:
        async with asyncio.timeout(within):
            database = await open_database(settings_for(env, **more))
            try:
                return await scenario(database)
            finally:
                async with asyncio.timeout(5):
                    await database.close()

    with asyncio.Runner(loop_factory=NEW_LOOP[loop]) as runner:
        return runner.run(main())


def connections(server: MariaDB, env: Environment) -> list[dict[str, Any]]:
    return server.sql(
        "SELECT id, info FROM information_schema.processlist WHERE db = %s AND user = 'berth'", env["MYSQL_DATABASE"]
    )


def kill_all(server: MariaDB, env: Environment) -> int:
    found = connections(server, env)
    for row in found:
        kill(server, row["id"])
    return len(found)


def kill(server: MariaDB, number: int) -> None:
    with suppress(pymysql.OperationalError):  # it has ended meanwhile
        server.sql(f"KILL {number}")


def eventually(condition: Callable[[], bool], within: float = 5.0) -> bool:
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


async def connection_id(on: Database | Connection) -> int:
    row = await on.fetch_one("SELECT CONNECTION_ID()")
    assert row
    return int(row[0])


async def both_slots_work(database: Database) -> None:
    """Two transactions that are open at the same time, as only two free slots allow."""
    met = asyncio.Barrier(2)

    async def one() -> None:
        async with database.transaction() as transaction:
            await transaction.fetch_one("SELECT 1")
            await met.wait()

    async with asyncio.timeout(5):
        await asyncio.gather(one(), one())


async def lose_connection(database: Database, server: MariaDB) -> None:
    async with database.transaction() as transaction:
        await asyncio.to_thread(kill, server, await connection_id(transaction))
        await transaction.execute("UPDATE accounts SET updated_at = 0")


@contextmanager
def locked_row(server: MariaDB, env: Environment, account: Account) -> Iterator[None]:
    """Another client of the database holds the account's row."""
    connection = pymysql.connect(unix_socket=str(server.unix_socket), user="root", database=env["MYSQL_DATABASE"])
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM accounts WHERE id = %s FOR UPDATE", (account.id,))
        yield
        connection.rollback()


def rename(service: Service, account: Account, name: str) -> httpx.Response:
    return service.client.patch("/v1/auth/me", json={"username": name}, headers=account.headers)


def list_sessions(service: Service, account: Account) -> httpx.Response:
    return service.client.get("/v1/auth/sessions", headers=account.headers)


def ready(service: Service) -> tuple[int, str]:
    answer = service.client.get("/health/ready")
    return answer.status_code, answer.json()["status"]


def check_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0


# The pool's connections


def test_killed_idle_connections_are_replaced_unseen(
    start_service: StartService, mariadb: MariaDB, env: Environment
) -> None:
    service = start_service(**env, MYSQL_POOL_MIN_SIZE=3)
    account = service.sign_up()
    for number in range(2):
        assert kill_all(mariadb, env) > 0
        assert list_sessions(service, account).status_code == 200
        kill_all(mariadb, env)
        assert rename(service, account, f"Renamed-{number}-{account.id[-6:]}").status_code == 200
        kill_all(mariadb, env)
        service.sign_up()


@pytest.mark.parametrize("loop", NEW_LOOP)
def test_connections_killed_inside_transactions_lose_no_slot(mariadb: MariaDB, env: Environment, loop: str) -> None:
    async def scenario(database: Database) -> None:
        for _ in range(6):
            with pytest.raises(Unavailable):
                await lose_connection(database, mariadb)
        await both_slots_work(database)

    play(scenario, env, loop, MYSQL_POOL_MAX_SIZE=2)


def test_a_connection_killed_before_its_commit_is_an_error_and_loses_no_slot(
    mariadb: MariaDB, env: Environment
) -> None:
    async def scenario(database: Database) -> None:
        for _ in range(6):
            with pytest.raises(Unavailable):
                async with database.transaction() as transaction:
                    await asyncio.to_thread(kill, mariadb, await connection_id(transaction))
        await both_slots_work(database)

    play(scenario, env, MYSQL_POOL_MAX_SIZE=2)


@pytest.mark.parametrize("loop", NEW_LOOP)
def test_cancelled_queries_inside_transactions_lose_no_slot_and_raise_what_was_raised(
    env: Environment, loop: str
) -> None:
    async def sleep_in(database: Database) -> None:
        async with database.transaction() as transaction:
            await transaction.fetch_one("SELECT SLEEP(3)")

    async def scenario(database: Database) -> None:
        for _ in range(6):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(sleep_in(database), 0.05)
        await both_slots_work(database)

    play(scenario, env, loop, MYSQL_POOL_MAX_SIZE=2)


def test_queries_cancelled_while_they_wait_for_a_slot_or_connect_lose_none(env: Environment, proxy: Proxy) -> None:
    async def scenario(database: Database) -> None:
        proxy.delay(0.02)
        for number in range(20):
            tasks = [asyncio.create_task(connection_id(database)) for _ in range(5)]
            await asyncio.sleep(number * 0.01)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        proxy.delay(0)
        await both_slots_work(database)

    play(scenario, env, MYSQL_PORT=proxy.port, MYSQL_POOL_MAX_SIZE=2, MYSQL_POOL_MIN_SIZE=0)


def test_those_who_wait_for_a_connection_get_one_when_it_breaks(mariadb: MariaDB, env: Environment) -> None:
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

    assert play(scenario, env, MYSQL_POOL_MAX_SIZE=1) < 2


def test_a_child_task_may_use_the_transaction_that_it_was_given(env: Environment) -> None:
    async def scenario(database: Database) -> None:
        async with database.transaction() as transaction:
            outer = await connection_id(transaction)
            assert await asyncio.create_task(connection_id(transaction)) == outer

    play(scenario, env, MYSQL_POOL_MAX_SIZE=1)


def test_the_pool_opens_its_minimum_at_once_and_never_more_than_its_maximum(mariadb: MariaDB, env: Environment) -> None:
    async def scenario(database: Database) -> tuple[int, int]:
        at_start = len(await asyncio.to_thread(connections, mariadb, env))
        queries = asyncio.gather(*(database.fetch_one("SELECT SLEEP(0.2)") for _ in range(12)))
        await asyncio.sleep(0.3)
        at_most = len(await asyncio.to_thread(connections, mariadb, env))
        await queries
        return at_start, at_most

    assert play(scenario, env, MYSQL_POOL_MIN_SIZE=2, MYSQL_POOL_MAX_SIZE=4) == (2, 4)


def test_a_connection_in_steady_use_is_replaced_when_it_is_old(env: Environment) -> None:
    async def scenario(database: Database) -> list[int]:
        seen = []
        for _ in range(12):
            seen.append(await connection_id(database))
            await asyncio.sleep(0.1)
        return seen

    seen = play(scenario, env, MYSQL_POOL_RECYCLE=0.5, MYSQL_POOL_MAX_SIZE=1)
    assert seen[0] == seen[1]
    assert 2 <= len(set(seen)) <= 4


def test_a_connection_that_the_server_closed_for_idleness_is_replaced_unseen(
    own: MariaDB, own_env: Environment
) -> None:
    async def scenario(database: Database) -> None:
        before = await connection_id(database)
        await asyncio.sleep(1.5)
        assert not await asyncio.to_thread(connections, own, own_env)
        assert await connection_id(database) != before
        async with database.transaction() as transaction:
            await transaction.execute("UPDATE accounts SET updated_at = 0")

    own.sql("SET GLOBAL wait_timeout = 1")
    try:
        play(scenario, own_env)
    finally:
        own.sql("SET GLOBAL wait_timeout = 28800")


# Time-outs


def test_a_request_that_finds_no_free_connection_in_time_is_answered_503(
    start_service: StartService, mariadb: MariaDB, env: Environment
) -> None:
    service = start_service(**env, MYSQL_POOL_MAX_SIZE=1, MYSQL_POOL_TIMEOUT=0.3)
    account = service.sign_up()
    answers: list[int] = []
    holder = threading.Thread(target=lambda: answers.append(rename(service, account, "Holder-1").status_code))
    with locked_row(mariadb, env, account):
        holder.start()
        assert eventually(lambda: any("UPDATE" in (row["info"] or "") for row in connections(mariadb, env)))
        started = time.monotonic()
        check_unavailable(list_sessions(service, account))
        assert 0.25 < time.monotonic() - started < 2
    holder.join(10)
    assert answers == [200]
    assert list_sessions(service, account).status_code == 200


def test_a_query_that_takes_too_long_is_answered_503_and_stopped_at_the_server_too(
    start_service: StartService, mariadb: MariaDB, env: Environment
) -> None:
    service = start_service(**env, MYSQL_POOL_MAX_SIZE=2, MYSQL_QUERY_TIMEOUT=0.5)
    account = service.sign_up()
    with locked_row(mariadb, env, account):
        for _ in range(3):
            started = time.monotonic()
            check_unavailable(rename(service, account, "Too-late"))
            assert time.monotonic() - started < 2
        assert eventually(lambda: not any(row["info"] for row in connections(mariadb, env)), within=2)
        assert list_sessions(service, account).status_code == 200
    assert rename(service, account, "In-time").status_code == 200


def test_a_session_has_the_limits_that_stop_a_forgotten_statement(env: Environment) -> None:
    async def scenario(database: Database) -> Any:
        return await database.fetch_one("SELECT @@max_statement_time, @@innodb_lock_wait_timeout, @@time_zone")

    seconds, lock_seconds, zone = play(scenario, env, MYSQL_QUERY_TIMEOUT=1.5)
    assert (float(seconds), lock_seconds, zone) == (1.5, 2, "+00:00")


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_query(env: Environment, proxy: Proxy) -> None:
    async def scenario(database: Database) -> None:
        before = await connection_id(database)
        proxy.stall()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await database.fetch_one("SELECT 'late'")
        proxy.resume()
        assert await database.fetch_one("SELECT 'next'") == ("next",)
        assert await connection_id(database) != before

    times: Environment = {"MYSQL_QUERY_TIMEOUT": 0.3, "MYSQL_CONNECT_TIMEOUT": 0.3}
    play(scenario, env, MYSQL_PORT=proxy.port, MYSQL_POOL_MAX_SIZE=1, **times)


def test_an_answer_cut_in_two_is_an_error_and_the_next_query_is_whole(env: Environment, proxy: Proxy) -> None:
    async def scenario(database: Database) -> None:
        for size in (0, 1, 4, 5, 30, 90):
            proxy.truncate(size)
            with suppress(Unavailable):  # a read is tried once more
                assert await database.fetch_one("SELECT REPEAT('x', 100)") == ("x" * 100,)
            assert await database.fetch_one("SELECT REPEAT('y', 100)") == ("y" * 100,)
        await both_slots_work(database)

    play(scenario, env, MYSQL_PORT=proxy.port, MYSQL_POOL_MAX_SIZE=2)


@pytest.mark.parametrize("loop", NEW_LOOP)
def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(env: Environment, loop: str) -> None:
    async def scenario(_: Database) -> None:
        raise AssertionError

    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            play(scenario, env, loop, MYSQL_PORT=silent.getsockname()[1], MYSQL_CONNECT_TIMEOUT=0.3)
        assert time.monotonic() - started < 2


@pytest.mark.parametrize("minimum", [0, 1])
def test_a_pool_does_not_open_on_a_server_that_is_not_there(env: Environment, minimum: int) -> None:
    async def scenario(_: Database) -> None:
        raise AssertionError

    with pytest.raises(Unavailable):
        play(scenario, env, MYSQL_PORT=free_port(), MYSQL_POOL_MIN_SIZE=minimum)


def test_a_silent_server_does_not_hold_up_the_exit(
    start_service: StartService, mariadb: MariaDB, env: Environment
) -> None:
    service = start_service(**env, SHUTDOWN_TIMEOUT=0.5)
    account = service.sign_up()

    def ask() -> None:
        with suppress(httpx.TransportError):
            rename(service, account, "Held")

    holder = threading.Thread(target=ask)
    with locked_row(mariadb, env, account):
        holder.start()
        assert eventually(lambda: any("UPDATE" in (row["info"] or "") for row in connections(mariadb, env)))
        assert service.stop(within=5) == 0
    holder.join(10)


# The server is lost


def test_a_lost_database_is_503_and_back_to_normal_within_5_seconds_of_its_return(
    start_service: StartService, own: MariaDB, own_env: Environment
) -> None:
    service = start_service(**own_env)
    account = service.sign_up()
    own.stop()
    try:
        check_unavailable(list_sessions(service, account))
        check_unavailable(rename(service, account, "Not-now"))
        assert ready(service) == (503, "unavailable")
        assert service.client.get("/health/live").status_code == 200
    finally:
        own.start()
    assert eventually(lambda: list_sessions(service, account).status_code == 200, within=5)
    assert ready(service) == (200, "ok")
    service.sign_up()


def test_a_stalled_database_is_503_within_the_time_outs_and_normal_when_it_moves(
    start_service: StartService, env: Environment, proxy: Proxy
) -> None:
    times: Environment = {"MYSQL_QUERY_TIMEOUT": 0.5, "MYSQL_CONNECT_TIMEOUT": 0.5, "MYSQL_POOL_TIMEOUT": 0.5}
    service = start_service(**{**env, "MYSQL_PORT": proxy.port}, MYSQL_POOL_MAX_SIZE=2, **times)
    account = service.sign_up()
    proxy.stall()
    for _ in range(3):
        started = time.monotonic()
        check_unavailable(list_sessions(service, account))
        assert time.monotonic() - started < 2
    assert ready(service) == (503, "unavailable")
    proxy.resume()
    assert eventually(lambda: list_sessions(service, account).status_code == 200, within=5)


def test_no_acknowledged_registration_is_lost_when_the_server_is_killed(
    start_service: StartService, own: MariaDB, own_env: Environment
) -> None:
    service = start_service(**own_env)
    created: list[str] = []
    refused: list[int] = []
    stopping = threading.Event()

    def register(worker: int) -> None:
        for number in range(10_000):
            name = f"worker-{worker}-{number}"
            body = {"username": name, "email": f"{name}@example.com", "password": "a long password"}
            answer = service.client.post("/v1/auth/register", json=body)
            if answer.status_code == 201:
                created.append(answer.json()["id"])
            else:
                refused.append(answer.status_code)
            if stopping.is_set():
                return

    workers = [threading.Thread(target=register, args=(number,)) for number in range(4)]
    for worker in workers:
        worker.start()
    assert eventually(lambda: len(created) >= 8, within=20)
    own.kill()
    own.start()
    before = len(created)
    assert eventually(lambda: len(created) > before + 2, within=20)
    stopping.set()
    for worker in workers:
        worker.join(20)
    stored = {row["id"] for row in own.sql("SELECT id FROM accounts", database=own_env["MYSQL_DATABASE"])}
    assert set(created) <= stored
    assert set(refused) <= {503}


# The replica


def test_reads_that_may_lag_go_to_the_replica_and_to_the_primary_when_it_is_lost(
    start_service: StartService, own: MariaDB, own_env: Environment
) -> None:
    replica = MariaDB("--bind-address=127.0.0.2")
    replica.port = own.port
    with replica:
        name = own_env["MYSQL_DATABASE"]
        replica.sql(f"CREATE DATABASE {name}")
        for row in own.sql(f"SHOW TABLES IN {name}"):
            table = next(iter(row.values()))
            statement = own.sql(f"SHOW CREATE TABLE {name}.{table}")[0]["Create Table"]
            replica.sql(statement.replace("%", "%%"), database=name)
        service = start_service(**own_env, MYSQL_READ_HOST="127.0.0.2")
        account = service.sign_up()
        assert list_sessions(service, account).json()["items"] == []  # the replica lags for ever
        replica.stop()
        assert len(list_sessions(service, account).json()["items"]) == 1
        service.wait_for_log(type="system", severity="WARNING")
        durations = []
        for _ in range(5):
            started = time.monotonic()
            assert len(list_sessions(service, account).json()["items"]) == 1
            durations.append(time.monotonic() - started)
        assert statistics.median(durations) < 0.5
        assert ready(service) == (200, "ok")


def test_a_replica_is_not_reached_through_the_primary_s_socket(mariadb: MariaDB, env: Environment) -> None:
    async def scenario(database: Database) -> None:
        assert database.replica
        async with database.replica.connection():
            pass

    with pytest.raises(Unavailable):
        play(scenario, env, MYSQL_UNIX_SOCKET=mariadb.unix_socket, MYSQL_READ_HOST="127.0.0.2")


# What is asked of the server, and what it says


def test_a_server_that_allows_fewer_connections_than_the_pool_is_warned_about(
    start_service: StartService, own: MariaDB, own_env: Environment
) -> None:
    own.sql("SET GLOBAL max_connections = 20")
    try:
        service = start_service(**own_env, MYSQL_POOL_MAX_SIZE=30)
        line = service.wait_for_log(severity="WARNING", type="system")
    finally:
        own.sql("SET GLOBAL max_connections = 151")
    assert "MYSQL_POOL_MAX_SIZE" in line["message"]
    assert "20" in line["message"]


def test_a_pool_that_the_server_has_room_for_is_not_warned_about(start_service: StartService, env: Environment) -> None:
    assert start_service(**env).log(severity="WARNING") == []


def test_a_password_may_hold_any_character(start_service: StartService, mariadb: MariaDB) -> None:
    database = mariadb.create_database()
    password = "pä%41+ß:/@?#[]&=\"'\\ пароль 🔑"
    mariadb.sql("CREATE USER 'bérth@%%'@'%%' IDENTIFIED BY %s", password)
    mariadb.sql(f"GRANT ALL ON {database}.* TO 'bérth@%'@'%'")
    try:
        env = migrate({**mariadb.environment(database), "MYSQL_USERNAME": "bérth@%", "MYSQL_PASSWORD": password})
        start_service(**env).sign_up()
    finally:
        mariadb.sql("DROP USER 'bérth@%'@'%'")


def test_a_unix_socket_is_used_instead_of_host_and_port(start_service: StartService, mariadb: MariaDB) -> None:
    env: Environment = mariadb.environment(mariadb.create_database())
    del env["MYSQL_HOST"]
    env = migrate(env | {"MYSQL_UNIX_SOCKET": str(mariadb.unix_socket), "MYSQL_PORT": "1"})
    service = start_service(**env)
    account = service.sign_up()
    assert list_sessions(service, account).status_code == 200


def test_all_of_unicode_comes_back_as_it_was_sent(env: Environment) -> None:
    async def scenario(database: Database) -> Any:
        return await database.fetch_one("SELECT :text, @@character_set_client", {"text": "ä🔑ß%s"})

    assert play(scenario, env) == ("ä🔑ß%s", "utf8mb4")


def test_a_slow_query_is_logged_without_its_values(
    start_service: StartService, mariadb: MariaDB, env: Environment
) -> None:
    service = start_service(**env, MYSQL_SLOW_QUERY=0.2, LOG_LEVEL="DEBUG")
    account = service.sign_up(username="Never-in-a-log", email="never-in-a-log@example.com")
    answers: list[int] = []
    renaming = threading.Thread(target=lambda: answers.append(rename(service, account, "Never-in-a-log-2").status_code))
    with locked_row(mariadb, env, account):
        renaming.start()
        time.sleep(0.5)
    renaming.join(10)
    assert answers == [200]
    line = service.wait_for_log(type="sql")
    assert line["duration_ms"] >= 200
    assert line["statement"].startswith("UPDATE accounts SET username = COALESCE(:username, username)")
    assert not any("never-in-a-log" in text.lower() for text in service.output)


def test_a_quick_query_is_not_logged(start_service: StartService, env: Environment) -> None:
    service = start_service(**env, MYSQL_SLOW_QUERY=30)
    service.sign_up()
    assert service.log(type="sql") == []


def test_a_warning_of_the_server_does_not_reach_stderr(
    start_service: StartService, mariadb: MariaDB, env: Environment
) -> None:
    mariadb.sql(
        "CREATE TRIGGER warn BEFORE INSERT ON accounts FOR EACH ROW SIGNAL SQLSTATE '01000'"
        " SET MESSAGE_TEXT = 'a warning of the server'",
        database=env["MYSQL_DATABASE"],
    )
    service = start_service(**env)
    service.sign_up()
    assert service.stop() == 0  # which looks at stderr
    assert not any(line["severity"] in ("ERROR", "CRITICAL") for line in service.lines)


def test_sqlite_tables_stay_between_queries(tmp_path: Path) -> None:
    async def scenario(database: Database) -> Any:
        await database.execute("CREATE TABLE t (x INTEGER)")
        await database.execute("INSERT INTO t VALUES (:x)", {"x": 1})
        return await database.fetch_one("SELECT x FROM t")

    assert play(scenario, {"DATA_DIR": str(tmp_path)}) == (1,)
