"""Start-up: what it waits for, what ends it, with which exit status, and what it says."""

import asyncio
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pymysql
import pytest

from infra.base.errors import StartupError, Unavailable
from infra.process.startup import retry
from infra.sql.schema import lock_name
from settings import NAME, VERSION
from tests.conftest import TEST_SETTINGS, StartService
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB, Redis, free_port, wait_until
from tests.support.service import ROOT, Record, Service, clean_environment, parse, run_app

Environment = dict[str, Any]

REVISIONS = sorted(path.name[:4] for path in (ROOT / "migrations" / "versions").glob("[0-9]*.py"))
WHO = "MYSQL_USERNAME and MYSQL_PASSWORD, MYSQL_SSL_MODE and MYSQL_SSL_CERT"
STEPS = [f"migration {revision}, {number} of {len(REVISIONS)}" for number, revision in enumerate(REVISIONS, 1)]


@pytest.fixture
def env(mariadb: MariaDB, migrated: str) -> Environment:
    return mariadb.environment(mariadb.create_database(like=migrated))


@pytest.fixture(scope="module")
def locked_redis() -> Iterator[Redis]:
    with Redis(password="the right one") as server:
        yield server


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        yield port


@pytest.fixture
def proxy(mariadb: MariaDB) -> Iterator[Proxy]:
    proxy = Proxy(mariadb.port)
    yield proxy
    proxy.close()


class Uvicorn(Service):
    command = (str(Path(sys.executable).parent / "uvicorn"), "app:app")


class Migration(Service):
    command = (sys.executable, "app.py", "migrate")


def run_and_fail(env: Environment, *arguments: str, status: int) -> Record:
    """Must end with this status and exactly one CRITICAL line, which holds no password; returns that line."""
    port = str(free_port())
    own = {**TEST_SETTINGS, "HOST": "127.0.0.1", "PORT": port, "STARTUP_TIMEOUT": "0.7"}
    done = run_app(*arguments, env={**own, **env})
    assert (done.returncode, done.stderr) == (status, ""), done.stdout + done.stderr
    [line] = [line for line in map(parse, done.stdout.splitlines()) if line["severity"] == "CRITICAL"]
    for name in ("MYSQL_PASSWORD", "REDIS_PASSWORD"):
        assert not env.get(name) or env[name] not in done.stdout
    return line


def revision(server: MariaDB, env: Environment) -> list[dict[str, Any]]:
    return server.sql("SELECT version_num FROM alembic_version", database=env["MYSQL_DATABASE"])


def tables(server: MariaDB, env: Environment) -> set[str]:
    rows = server.sql(
        "SELECT table_name AS name FROM information_schema.tables WHERE table_schema = %s", env["MYSQL_DATABASE"]
    )
    return {row["name"] for row in rows}


def ready(service: Service) -> tuple[int, str]:
    answer = service.client.get("/health/ready")
    return answer.status_code, answer.json()["status"]


def serves(service: Service) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", service.port)) == 0


# A server that can't be had


@pytest.mark.parametrize("arguments", [(), ("migrate",)], ids=["serve", "migrate"])
def test_a_database_that_refuses_ends_it_with_69_and_its_name(env: Environment, arguments: tuple[str, ...]) -> None:
    port = str(free_port())
    message = run_and_fail({**env, "MYSQL_PORT": port}, *arguments, status=os.EX_UNAVAILABLE)["message"]
    assert f"127.0.0.1:{port}" in message
    assert "refused" in message


def test_waiting_for_a_server_is_told_once(env: Environment) -> None:
    done = run_app(env={**TEST_SETTINGS, **env, "MYSQL_PORT": str(free_port()), "STARTUP_TIMEOUT": "1"})
    waiting = [line for line in map(parse, done.stdout.splitlines()) if line["message"].startswith("waiting for")]
    assert len(waiting) == 1
    assert "refused" in waiting[0]["message"]


@pytest.mark.parametrize("arguments", [(), ("migrate",)], ids=["serve", "migrate"])
def test_a_database_that_is_silent_ends_it_with_69_in_time(
    env: Environment, silent_port: int, arguments: tuple[str, ...]
) -> None:
    started = time.monotonic()
    line = run_and_fail({**env, "MYSQL_PORT": str(silent_port)}, *arguments, status=os.EX_UNAVAILABLE)
    assert time.monotonic() - started < 5
    assert f"127.0.0.1:{silent_port}" in line["message"]
    assert "no answer" in line["message"]


def test_a_silent_database_that_was_tried_several_times_is_named_with_a_readable_cause(
    env: Environment, silent_port: int
) -> None:
    env = {**env, "MYSQL_PORT": str(silent_port), "MYSQL_CONNECT_TIMEOUT": "0.1"}
    assert "no answer" in run_and_fail(env, status=os.EX_UNAVAILABLE)["message"]


@pytest.mark.parametrize("arguments", [(), ("migrate",)], ids=["serve", "migrate"])
@pytest.mark.parametrize(
    ("wrong", "variable", "cause"),
    [
        ({"MYSQL_PASSWORD": "not-this-one"}, WHO, "Access denied"),
        ({"MYSQL_USERNAME": "nobody"}, WHO, "Access denied"),
        ({"MYSQL_DATABASE": "berth_none"}, "MYSQL_DATABASE", "Unknown database 'berth_none'"),
        ({"MYSQL_DATABASE": "mysql"}, "MYSQL_DATABASE, and what MYSQL_USERNAME was granted", "Access denied"),
    ],
    ids=["password", "username", "database", "grant"],
)
def test_a_database_that_refuses_what_it_is_asked_with_ends_it_at_once_with_78_and_the_variable(
    env: Environment, arguments: tuple[str, ...], wrong: Environment, variable: str, cause: str
) -> None:
    started = time.monotonic()
    line = run_and_fail({**env, **wrong, "STARTUP_TIMEOUT": "30"}, *arguments, status=os.EX_CONFIG)
    assert time.monotonic() - started < 15
    assert f"127.0.0.1:{env['MYSQL_PORT']}" in line["message"]
    assert cause in line["message"]
    assert line["message"].endswith(f"look at {variable}")


def test_a_host_name_that_does_not_resolve_is_the_cause_that_is_told(env: Environment) -> None:
    message = run_and_fail({**env, "MYSQL_HOST": "database.invalid"}, status=os.EX_UNAVAILABLE)["message"]
    assert f"database.invalid:{env['MYSQL_PORT']}" in message


def test_a_socket_that_is_not_there_is_named(env: Environment, tmp_path: Path) -> None:
    path = str(tmp_path / "none.sock")
    assert path in run_and_fail({**env, "MYSQL_UNIX_SOCKET": path}, status=os.EX_UNAVAILABLE)["message"]


def test_a_redis_that_refuses_ends_it_with_69_and_its_name() -> None:
    port = str(free_port())
    env = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": port, "REDIS_PASSWORD": "never-in-a-log"}
    message = run_and_fail(env, status=os.EX_UNAVAILABLE)["message"]
    assert f"Redis at 127.0.0.1:{port}" in message
    assert "refused" in message.lower() or "connect" in message.lower()


@pytest.mark.parametrize("cluster", ["false", "true"])
def test_a_redis_that_is_silent_ends_it_with_69_in_time(silent_port: int, cluster: str) -> None:
    started = time.monotonic()
    env = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(silent_port), "REDIS_CLUSTER": cluster}
    assert f"Redis at 127.0.0.1:{silent_port}" in run_and_fail(env, status=os.EX_UNAVAILABLE)["message"]
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("wrong", "variable"),
    [
        ({"REDIS_PASSWORD": "not-this-one"}, "REDIS_USERNAME and REDIS_PASSWORD"),
        ({"REDIS_PASSWORD": ""}, "REDIS_USERNAME and REDIS_PASSWORD"),
        ({"REDIS_USERNAME": "nobody"}, "REDIS_USERNAME and REDIS_PASSWORD"),
        ({"REDIS_DB": "99999"}, "REDIS_DB"),
        ({"REDIS_CLUSTER": "true", "REDIS_DB": "0"}, "REDIS_CLUSTER"),
    ],
    ids=["password", "no-password", "username", "database", "cluster"],
)
def test_a_redis_that_refuses_what_it_is_asked_with_ends_it_at_once_with_78_and_the_variable(
    locked_redis: Redis, wrong: Environment, variable: str
) -> None:
    started = time.monotonic()
    env = {**locked_redis.environment(), **wrong, "STARTUP_TIMEOUT": "30"}
    message = run_and_fail(env, status=os.EX_CONFIG)["message"]
    assert time.monotonic() - started < 15
    assert f"127.0.0.1:{locked_redis.port}" in message
    assert message.endswith(f"look at {variable}")


def test_both_lost_is_told_in_one_line(env: Environment) -> None:
    env = {**env, "MYSQL_PORT": str(free_port()), "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(free_port())}
    assert "can't be reached" in run_and_fail(env, status=os.EX_UNAVAILABLE)["message"]


# A server that comes late


def test_a_database_that_comes_up_late_is_waited_for(
    start_service: StartService, env: Environment, proxy: Proxy
) -> None:
    proxy.refuse()
    service = start_service(**{**env, "MYSQL_PORT": str(proxy.port)}, wait=False)
    time.sleep(1.2)
    assert service.process.poll() is None
    proxy.accept()
    service.wait_until_started(within=10)
    assert ready(service) == (200, "ok")


def test_a_database_that_hangs_at_first_is_waited_for(
    start_service: StartService, env: Environment, proxy: Proxy
) -> None:
    proxy.stall()
    service = start_service(**{**env, "MYSQL_PORT": str(proxy.port)}, MYSQL_CONNECT_TIMEOUT=0.5, wait=False)
    time.sleep(1.2)
    assert service.process.poll() is None
    proxy.resume()
    service.wait_until_started(within=10)
    assert ready(service) == (200, "ok")


def test_a_redis_that_comes_up_late_is_waited_for(start_service: StartService, redis: Redis) -> None:
    proxy = Proxy(redis.port)
    try:
        proxy.refuse()
        env = {**redis.environment(), "REDIS_PORT": str(proxy.port)}
        service = start_service(**env, wait=False)
        time.sleep(1.2)
        assert service.process.poll() is None
        proxy.accept()
        service.wait_until_started(within=10)
        assert ready(service) == (200, "ok")
    finally:
        proxy.close()


def test_a_redis_that_hangs_at_first_is_waited_for(start_service: StartService, redis: Redis) -> None:
    proxy = Proxy(redis.port)
    try:
        proxy.stall()
        env = {**redis.environment(), "REDIS_PORT": str(proxy.port), "REDIS_TIMEOUT": "0.5"}
        service = start_service(**env, wait=False)
        wait_until(lambda: proxy.accepted > 0, "the first connection", within=20)
        proxy.hang()  # that one for ever
        service.wait_until_started(within=10)
        assert ready(service) == (200, "ok")
    finally:
        proxy.close()


def test_what_is_refused_is_tried_ever_more_seldom_and_not_after_the_deadline() -> None:
    attempts: list[float] = []

    async def refused() -> None:
        attempts.append(time.monotonic())
        raise Unavailable("refused")

    deadline = time.monotonic() + 1.2
    with pytest.raises(StartupError):
        asyncio.run(retry("a server", refused, deadline))
    assert time.monotonic() < deadline + 0.5
    assert 4 <= len(attempts) <= 7  # after 0.1, 0.2, 0.4 and 0.8 s, each with up to half of it less


# The schema


def test_a_database_without_a_schema_ends_it_with_78_and_the_command_that_migrates(mariadb: MariaDB) -> None:
    env = mariadb.environment(mariadb.create_database())
    assert "`python app.py migrate`" in run_and_fail(env, status=os.EX_CONFIG)["message"]


def test_a_schema_behind_the_code_ends_it_with_78_and_the_command_that_migrates(
    mariadb: MariaDB, env: Environment
) -> None:
    mariadb.sql("UPDATE alembic_version SET version_num = '0000'", database=env["MYSQL_DATABASE"])
    assert "`python app.py migrate`" in run_and_fail(env, status=os.EX_CONFIG)["message"]


def test_a_revision_table_without_a_row_counts_as_behind(mariadb: MariaDB, env: Environment) -> None:
    mariadb.sql("DELETE FROM alembic_version", database=env["MYSQL_DATABASE"])
    assert "`python app.py migrate`" in run_and_fail(env, status=os.EX_CONFIG)["message"]


def test_several_migrations_at_once_all_succeed_and_migrate_once(mariadb: MariaDB, migrated: str) -> None:
    env = mariadb.environment(mariadb.create_database())
    statuses: list[int] = []

    def one() -> None:
        statuses.append(run_app("migrate", env={**TEST_SETTINGS, **env}).returncode)

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [0] * 4
    assert tables(mariadb, env) == tables(mariadb, {"MYSQL_DATABASE": migrated})
    assert len(revision(mariadb, env)) == 1


def test_a_migration_may_run_again(mariadb: MariaDB, env: Environment) -> None:
    before = revision(mariadb, env)
    assert run_app("migrate", env={**TEST_SETTINGS, **env}).returncode == 0
    assert revision(mariadb, env) == before


def test_a_migration_cut_off_half_way_is_finished_by_the_next(
    mariadb: MariaDB, env: Environment, migrated: str
) -> None:
    mariadb.sql("DROP TABLE refresh_tokens", database=env["MYSQL_DATABASE"])
    mariadb.sql("DELETE FROM alembic_version", database=env["MYSQL_DATABASE"])
    assert run_app("migrate", env={**TEST_SETTINGS, **env}).returncode == 0
    assert tables(mariadb, env) == tables(mariadb, {"MYSQL_DATABASE": migrated})


def test_instances_that_start_at_once_on_one_sqlite_file_all_serve(start_service: StartService, tmp_path: Path) -> None:
    services = [start_service(DATA_DIR=tmp_path / "data", wait=False) for _ in range(3)]
    for service in services:
        service.wait_until_started()
        service.sign_up()


def test_a_migration_that_another_one_holds_up_for_too_long_ends_with_69(mariadb: MariaDB, env: Environment) -> None:
    holder = pymysql.connect(unix_socket=str(mariadb.unix_socket), user="root", database=env["MYSQL_DATABASE"])
    with holder, holder.cursor() as cursor:
        cursor.execute(f"SELECT GET_LOCK({lock_name(NAME)}, 0)")
        assert "another migration" in run_and_fail(env, "migrate", status=os.EX_UNAVAILABLE)["message"]


def test_a_migration_of_a_file_that_another_process_has_locked_ends_with_69(tmp_path: Path) -> None:
    env = {"DATA_DIR": str(tmp_path)}
    assert run_app("migrate", env={**TEST_SETTINGS, **env}).returncode == 0
    with closing(sqlite3.connect(tmp_path / f"{NAME}.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        message = run_and_fail(env, "migrate", status=os.EX_UNAVAILABLE)["message"]
    assert "can't be migrated: " in message
    assert "database is locked" in message


def test_a_database_may_have_as_long_a_name_as_mysql_allows(mariadb: MariaDB) -> None:
    name = "berth_".ljust(64, "x")
    mariadb.sql(f"CREATE DATABASE {name}")
    assert run_app("migrate", env={**TEST_SETTINGS, **mariadb.environment(name)}).returncode == 0
    [row] = mariadb.sql(f"SELECT CHAR_LENGTH({lock_name(NAME)}) AS length", database=name)
    assert row["length"] <= 64  # MariaDB would take more, MySQL refuses it


def test_a_migration_that_may_not_create_tables_says_so(mariadb: MariaDB) -> None:
    name = mariadb.create_database()
    mariadb.sql("CREATE USER reader@'%%' IDENTIFIED BY %s", mariadb.password)
    mariadb.sql(f"GRANT SELECT ON {name}.* TO reader@'%'")
    env = mariadb.environment(name) | {"MYSQL_USERNAME": "reader"}
    assert "denied" in run_and_fail(env, "migrate", status=os.EX_UNAVAILABLE)["message"]


def test_a_schema_newer_than_the_code_is_served(
    start_service: StartService, mariadb: MariaDB, env: Environment
) -> None:
    mariadb.sql("UPDATE alembic_version SET version_num = '9999'", database=env["MYSQL_DATABASE"])
    start_service(**env).sign_up()


def test_migrating_a_schema_newer_than_the_code_does_nothing(mariadb: MariaDB, env: Environment) -> None:
    mariadb.sql("UPDATE alembic_version SET version_num = '9999'", database=env["MYSQL_DATABASE"])
    done = run_app("migrate", env={**TEST_SETTINGS, **env})
    assert done.returncode == 0, done.stdout
    assert revision(mariadb, env) == [{"version_num": "9999"}]


# The settings


@pytest.mark.parametrize(
    ("log_format", "level", "message"),
    [("json", "severity", "message"), ("gcp", "severity", "message"), ("ecs", "log.level", "message")],
)
@pytest.mark.parametrize("chosen_by", ["LOG_FORMAT", "ENV_FILE"])
def test_what_is_wrong_with_the_settings_is_told_in_the_format_that_was_asked_for_and_warnings_too(
    log_format: str, level: str, message: str, chosen_by: str, tmp_path: Path
) -> None:
    (tmp_path / "env").write_text(f"LOG_FORMAT={log_format}\n")
    chosen = {"LOG_FORMAT": log_format} if chosen_by == "LOG_FORMAT" else {"ENV_FILE": tmp_path / "env"}
    done = run_app(env={"PORT": "x", "MYSQL_HSOT": "db", "GOOGLE_CLOUD_PROJECT": "harbour", **chosen})
    assert (done.returncode, done.stderr) == (os.EX_CONFIG, "")
    lines = [parse(line) for line in done.stdout.splitlines()]
    assert [(line[level].upper(), line[message].partition(" is ")[0]) for line in lines] == [
        ("WARNING", "nothing reads MYSQL_HSOT:"),
        ("CRITICAL", "PORT"),
    ]
    assert ("@timestamp" in lines[0], "logging.googleapis.com/labels" in lines[0]) == (
        log_format == "ecs",
        log_format == "gcp",
    )


def test_what_is_wrong_with_the_settings_is_told_to_people_where_they_asked_for_that() -> None:
    done = run_app(env={"PORT": "x", "LOG_FORMAT": "console"})
    assert (done.returncode, done.stderr) == (os.EX_CONFIG, "")
    assert re.fullmatch(r"\S+ CRITICAL \S+ PORT is 'x': expected an integer .*\n", done.stdout)


def test_a_format_that_is_wrong_itself_is_told_in_json() -> None:
    done = run_app(env={"LOG_FORMAT": "xml"})
    assert [parse(line)["variable"] for line in done.stdout.splitlines()] == ["LOG_FORMAT"]


def test_a_misspelt_variable_is_warned_of_and_the_service_serves(start_service: StartService) -> None:
    service = start_service(MYSQL_HSOT="db")
    [line] = service.log(severity="WARNING")
    assert line["message"] == "nothing reads MYSQL_HSOT: is MYSQL_HOST meant?"


# The process


def test_a_port_in_use_ends_it_with_69_and_its_number(silent_port: int) -> None:
    message = run_and_fail({"PORT": str(silent_port)}, status=os.EX_UNAVAILABLE)["message"]
    assert str(silent_port) in message
    assert "in use" in message


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_for_a_server_ends_it_with_0(
    start_service: StartService, env: Environment, silent_port: int, number: signal.Signals
) -> None:
    redis = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": silent_port}
    service = start_service(**{**env, "MYSQL_PORT": str(silent_port)}, **redis, wait=False)
    time.sleep(1.2)
    assert service.process.poll() is None
    service.signal(number)
    assert service.wait_for_exit(within=3) == 0
    service.check_output()
    assert not service.log(severity="CRITICAL")


@pytest.mark.parametrize(("command", "status"), [(Service, 0), (Migration, 128 + signal.SIGTERM)])
def test_a_signal_during_the_imports_ends_it_at_once(command: type[Service], status: int, tmp_path: Path) -> None:
    (tmp_path / "uvloop.py").write_text("import time\nprint('{}', flush=True)\ntime.sleep(60)\n")  # is found first
    with command({**TEST_SETTINGS, "PYTHONPATH": tmp_path}, wait=False) as process:
        wait_until(lambda: bool(process.output), "the import")
        assert process.stop(within=3) == status


def test_nobody_can_connect_before_it_is_ready(start_service: StartService, env: Environment, silent_port: int) -> None:
    service = start_service(**{**env, "MYSQL_PORT": str(silent_port)}, wait=False)
    time.sleep(1.2)
    assert service.process.poll() is None
    assert not serves(service)


def test_importing_the_app_reads_no_setting_and_opens_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); before = len(os.listdir('/proc/self/fd'))\n"
        "import app\n"
        "assert len(os.listdir('/proc/self/fd')) == before, os.listdir('/proc/self/fd')\n"
    )
    env = clean_environment({"SYS_ENV": "nonsense", "MYSQL_HOST": "database.invalid"})
    command = [sys.executable, "-B", "-c", code, str(ROOT)]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


def test_uvicorn_serves_the_app_by_its_name(env: Environment, tmp_path: Path) -> None:
    port = free_port()
    own = {**TEST_SETTINGS, **env, "UVICORN_PORT": str(port), "DATA_DIR": str(tmp_path)}
    with Uvicorn(own, wait=False) as service:
        service.client.base_url = f"http://127.0.0.1:{port}"
        service.wait_until_started()
        assert ready(service) == (200, "ok")
        service.sign_up()
        service.signal(signal.SIGTERM)
        service.wait_for_exit()


def test_help_tells_the_commands_and_ends_with_0() -> None:
    done = run_app("--help", env={})
    assert (done.returncode, done.stderr) == (0, "")
    assert "python app.py migrate" in done.stdout


def test_version_tells_name_and_version_and_reads_no_setting() -> None:
    done = run_app("--version", env={"PORT": "x"})
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{NAME} {VERSION}\n", "")


def test_an_unknown_command_ends_with_64() -> None:
    assert run_app("sail", env={}).returncode == os.EX_USAGE
