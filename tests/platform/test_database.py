"""What is asked of the database server, and what it says."""

import gc
import sqlite3
import statistics
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from infra.base.errors import Unavailable
from infra.sql.database import Database
from tests.conftest import TEST_SETTINGS, StartService
from tests.faults.scenarios import (
    Environment,
    connections,
    eventually,
    list_sessions,
    locked_row,
    migrate,
    play,
    rename,
)
from tests.support.servers import MariaDB
from tests.support.service import Account, Service


@pytest.fixture(scope="module")
def own() -> Iterator[MariaDB]:
    """A server that tests here may stop and reconfigure; each leaves it running."""
    with MariaDB() as server:
        yield server


@pytest.fixture
def own_env(own: MariaDB) -> Environment:
    return migrate(own.environment(own.create_database()))


def ready(service: Service) -> tuple[int, str]:
    answer = service.client.get("/health/ready")
    return answer.status_code, answer.json()["status"]


def test_reads_that_may_lag_go_to_the_replica_and_to_the_primary_when_it_is_lost(
    start_service: StartService, own: MariaDB, own_env: Environment
) -> None:
    with replica_of(own, own_env) as replica:
        service = start_service(**own_env, MYSQL_READ_HOST="127.0.0.2")
        account = service.sign_up()
        assert list_sessions(service, account).json()["items"] == []
        replica.stop()
        assert len(list_sessions(service, account).json()["items"]) == 1
        service.wait_for_log(type="system", severity="WARNING")
        assert statistics.median(timed_list(service, account) for _ in range(5)) < 0.5
        assert ready(service) == (200, "ok")


@contextmanager
def replica_of(primary: MariaDB, env: Environment) -> Iterator[MariaDB]:
    """A server with the same tables on another address; it lags for ever: its tables stay empty."""
    replica = MariaDB("--bind-address=127.0.0.2")
    replica.port = primary.port
    with replica:
        name = env["MYSQL_DATABASE"]
        replica.sql(f"CREATE DATABASE {name}")
        for row in primary.sql(f"SHOW TABLES IN {name}"):
            table = next(iter(row.values()))
            statement = primary.sql(f"SHOW CREATE TABLE {name}.{table}")[0]["Create Table"]
            replica.sql(statement.replace("%", "%%"), database=name)
        yield replica


def test_a_replica_is_not_reached_through_the_primary_s_socket(mariadb: MariaDB, mysql_env: Environment) -> None:
    async def scenario(database: Database) -> None:
        assert database.replica
        async with database.replica.connection():
            pass

    with pytest.raises(Unavailable):
        play(scenario, mysql_env, MYSQL_UNIX_SOCKET=mariadb.unix_socket, MYSQL_READ_HOST="127.0.0.2")


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


def test_a_pool_that_the_server_has_room_for_is_not_warned_about(
    start_service: StartService, mysql_env: Environment
) -> None:
    assert start_service(**mysql_env).log(severity="WARNING") == []


def test_a_password_may_hold_any_character(start_service: StartService, mariadb: MariaDB) -> None:
    database = mariadb.create_database()
    password = "pä%41+ß:/@?#[]&=\"'\\ пароль 🔑"
    mariadb.sql("CREATE USER 'bérth@%%'@'%%' IDENTIFIED BY %s", password)
    mariadb.sql(f"GRANT ALL ON {database}.* TO 'bérth@%'@'%'")
    try:
        mysql_env = migrate({**mariadb.environment(database), "MYSQL_USERNAME": "bérth@%", "MYSQL_PASSWORD": password})
        start_service(**mysql_env).sign_up()
    finally:
        mariadb.sql("DROP USER 'bérth@%'@'%'")


def test_a_unix_socket_is_used_instead_of_host_and_port(start_service: StartService, mariadb: MariaDB) -> None:
    mysql_env: Environment = mariadb.environment(mariadb.create_database())
    del mysql_env["MYSQL_HOST"]
    mysql_env = migrate(mysql_env | {"MYSQL_UNIX_SOCKET": str(mariadb.unix_socket), "MYSQL_PORT": "1"})
    service = start_service(**mysql_env)
    account = service.sign_up()
    assert list_sessions(service, account).status_code == 200


def test_all_of_unicode_comes_back_as_it_was_sent(mysql_env: Environment) -> None:
    async def scenario(database: Database) -> Any:
        return await database.fetch_one("SELECT :text, @@character_set_client", {"text": "ä🔑ß%s"})

    assert play(scenario, mysql_env) == ("ä🔑ß%s", "utf8mb4")


def test_a_slow_query_is_logged_without_its_values(
    start_quick_service: StartService, mariadb: MariaDB, mysql_env: Environment
) -> None:
    service = start_quick_service(**mysql_env, MYSQL_SLOW_QUERY=0.2, LOG_LEVEL="DEBUG")
    account = service.sign_up(username="Never-in-a-log", email="never-in-a-log@example.com")
    answers: list[int] = []
    renaming = threading.Thread(target=lambda: answers.append(rename(service, account, "Never-in-a-log-2").status_code))
    with locked_row(mariadb, mysql_env, account.id):
        renaming.start()
        waits = lambda: any("UPDATE" in (row["info"] or "") for row in connections(mariadb, mysql_env))  # noqa: E731
        assert eventually(waits)
        time.sleep(0.3)
    renaming.join(10)
    assert answers == [200]
    line = service.wait_for_log(type="sql")
    assert line["duration_ms"] >= 200
    assert line["statement"].startswith("UPDATE accounts SET username = COALESCE(:username, username)")
    assert not any("never-in-a-log" in text.lower() for text in service.output)


def test_a_quick_query_is_not_logged(start_service: StartService, mysql_env: Environment) -> None:
    service = start_service(**mysql_env, MYSQL_SLOW_QUERY=30)
    service.sign_up()
    assert service.log(type="sql") == []


def test_a_warning_of_the_server_does_not_reach_stderr(
    start_service: StartService, mariadb: MariaDB, mysql_env: Environment
) -> None:
    mariadb.sql(
        "CREATE TRIGGER warn BEFORE INSERT ON accounts FOR EACH ROW SIGNAL SQLSTATE '01000'"
        " SET MESSAGE_TEXT = 'a warning of the server'",
        database=mysql_env["MYSQL_DATABASE"],
    )
    service = start_service(**mysql_env)
    service.sign_up()
    assert service.stop() == 0  # which looks at stderr
    assert not any(line["severity"] in ("ERROR", "CRITICAL") for line in service.lines)


def test_sqlite_tables_stay_between_queries(tmp_path: Path) -> None:
    async def scenario(database: Database) -> Any:
        await database.execute("CREATE TABLE t (x INTEGER)")
        await database.execute("INSERT INTO t VALUES (:x)", {"x": 1})
        return await database.fetch_one("SELECT x FROM t")

    assert play(scenario, {"DATA_DIR": str(tmp_path)}) == (1,)


class CarelessService(Service):
    """Started by a shell whose new files are everybody's."""

    command = ("sh", "-c", f"umask 0; exec {sys.executable} app.py")


def test_sqlites_files_and_the_kept_key_are_their_owners_only(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with ExitStack() as stack:
        for _ in range(2):  # made, and found as they must not be
            with CarelessService({**TEST_SETTINGS, "DATA_DIR": data}) as service:
                reader = stack.enter_context(closing(sqlite3.connect(data / "berth.db")))  # the -wal stays
                reader.execute("SELECT version_num FROM alembic_version").fetchone()
                service.client.get("/health/ready")
                kept = {path.name: path.stat().st_mode & 0o777 for path in data.iterdir()}
            assert kept == dict.fromkeys(["berth.db", "berth.db-wal", "berth.db-shm", "secret_key"], 0o600)
            for path in data.iterdir():
                path.chmod(0o666)


def test_no_connection_to_sqlite_outlives_its_use(start_service: StartService) -> None:
    """A cursor that is collected while its connection waits for a lock would hold up the event loop until it has it."""
    service = start_service("sqlite")
    taken = {"username": service.sign_up().username, "email": "another@example.com", "password": "correct horse"}
    assert service.client.post("/v1/auth/register", json=taken).status_code == 409
    assert service.client.get("/health/ready").status_code == 200

    def opened() -> list[str]:
        files = [str(link.readlink()) for link in Path(f"/proc/{service.pid}/fd").iterdir()]
        return [name for name in files if name.endswith("berth.db")]

    assert eventually(lambda: not opened()), opened()


def test_a_connection_that_was_closed_is_not_kept_in_memory(tmp_path: Path) -> None:
    async def scenario(database: Database) -> Any:
        async with database.primary.connection() as connection:
            await connection.run("SELECT 1", {})
            raw = weakref.ref(connection.raw_connection)
        del connection
        gc.collect()
        return raw()

    assert play(scenario, {"DATA_DIR": str(tmp_path)}) is None


# After an error, and on several servers


@pytest.mark.parametrize("again", ["register", "rename"])
def test_after_a_409_no_connection_is_left_inside_a_transaction(
    start_service: StartService, mariadb: MariaDB, mysql_env: Environment, again: str
) -> None:
    service = start_service(**mysql_env, MYSQL_POOL_MAX_SIZE=1)
    account, other = service.sign_up(), service.sign_up()
    if again == "register":
        taken = {"username": other.username, "email": "free@example.com", "password": "correct horse"}
        answer = service.client.post("/v1/auth/register", json=taken)
    else:
        answer = rename(service, account, other.username)
    assert answer.status_code == 409
    assert eventually(lambda: not transactions(mariadb, mysql_env)), transactions(mariadb, mysql_env)
    assert len(connections(mariadb, mysql_env)) == 1  # which is still open, and used again
    assert rename(service, account, f"{other.username}-2").status_code == 200
    assert eventually(lambda: not transactions(mariadb, mysql_env))


def transactions(server: MariaDB, env: Environment) -> list[dict[str, Any]]:
    """Those that are open on the connections to this database."""
    return server.sql(
        "SELECT trx_id, trx_started FROM information_schema.innodb_trx"
        " JOIN information_schema.processlist ON id = trx_mysql_thread_id WHERE db = %s",
        env["MYSQL_DATABASE"],
    )


def test_a_409_changes_nothing(start_service: StartService, backend: str) -> None:
    service = start_service(backend)
    account, other = service.sign_up(), service.sign_up()
    change = {"username": "Changed", "email": other.email, "current_password": account.password}
    assert service.client.patch("/v1/auth/me", json=change, headers=account.headers).status_code == 409
    assert service.client.get("/v1/auth/me", headers=account.headers).json()["username"] == account.username
    assert rename(service, other, "Changed").status_code == 200  # the name is free, and nobody holds its lock


def test_a_replica_that_hangs_costs_one_time_out_and_is_used_again_later(
    start_service: StartService, own: MariaDB, own_env: Environment
) -> None:
    times: Environment = {"MYSQL_QUERY_TIMEOUT": "0.5", "MYSQL_CONNECT_TIMEOUT": "0.5"}
    with replica_of(own, own_env) as replica:
        service = start_service(**own_env, **times, MYSQL_READ_HOST="127.0.0.2", MYSQL_POOL_MAX_SIZE=2)
        account = service.sign_up()
        assert list_sessions(service, account).json()["items"] == []
        replica.pause()
        seconds = [timed_list(service, account) for _ in range(6)]
        assert max(seconds) < 2
        assert sum(seconds) < 2  # six time-outs would take 3 s
        assert ready(service) == (200, "ok")
        replica.resume()
        assert eventually(lambda: list_sessions(service, account).json()["items"] == [], within=10)


def timed_list(service: Service, account: Account) -> float:
    """How long it took; the answer is the primary's."""
    started = time.monotonic()
    assert len(list_sessions(service, account).json()["items"]) == 1
    return time.monotonic() - started
