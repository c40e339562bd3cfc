"""docs/troubleshooting.md: each line in it is one that the service prints in that trouble."""

import os
import re
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress

import pymysql
import pytest

from handlers.accounts.tokens import TokenKeys
from settings import NAME
from tests.conftest import TEST_SETTINGS, Environment
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB, Redis, free_port
from tests.support.service import ROOT, Service, parse, run_app

TABLE = (ROOT / "docs/troubleshooting.md").read_text()
ROWS = [row.split(" | ") for row in TABLE.splitlines() if row.startswith("| ")][1:]
MIGRATIONS = sorted(path.stem for path in (ROOT / "migrations/versions").glob("*.py"))
LINES = [found[2] for row in ROWS for found in re.finditer(r"(`+)\s?(.+?)\s?\1", row[1])]
WRONG_HANDLER = """
import sys
import app
from starlette.routing import Route

async def read_note(request): ...

app.ROUTES.append(Route("/v1/notes", read_note))
sys.exit(app.main([]))
"""
COLLECTOR_STALLS = """
import os
from infra import logs
stdout = os.dup(1)
os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
writer = logs.configure(service="berth", level="INFO", log_format="json")
logs.get_logger("system").info("lost")
writer.flush()
os.dup2(stdout, 1)
logs.get_logger("system").info("not lost")
"""


@pytest.fixture(scope="module")
def printed(redis: Redis) -> set[str]:
    """All that it says in these troubles, with the page's hosts and ports for those of the tests."""
    with MariaDB() as mariadb:  # its own, which other services' connections don't fill
        env = mariadb.environment(mariadb.create_database()) | redis.environment()
        assert run_app("migrate", env={**TEST_SETTINGS, **env}).returncode == 0
        refused = refused_starts(mariadb, redis, env)
        lost = lost_servers(mariadb, redis, env)
    return {*refused, *lost, *bad_requests(), *a_locked_database(), *a_wrong_handler(), *a_stalled_collector()}


def as_on_the_page(messages: list[str], env: Environment) -> list[str]:
    names = {
        f"127.0.0.1:{env.get('MYSQL_PORT')}": "mysql:3306",
        f"127.0.0.1:{env.get('REDIS_PORT')}": "redis:6379",
        f"HOST 127.0.0.1, PORT {env.get('PORT')}": "HOST 0.0.0.0, PORT 8000",
        "server on '127.0.0.1'": "server on 'mysql'",
        ", ".join(MIGRATIONS): "0004_notes",
        "@'127.0.0.1'": "@'10.0.0.7'",
    }
    pattern = re.compile("|".join(map(re.escape, names)))
    return [pattern.sub(lambda found: names[found[0]], message) for message in messages]


def start_and_fail(env: Environment) -> list[str]:
    own = {**TEST_SETTINGS, "HOST": "127.0.0.1", "PORT": str(free_port()), "SECRET_KEY": os.urandom(32).hex()}
    env = {**own, "STARTUP_TIMEOUT": "3", **env}
    done = run_app(env=env)
    assert done.returncode in (69, 78), done.stdout
    return as_on_the_page([parse(line)["message"] for line in done.stdout.splitlines()], env)


def refused_starts(mariadb: MariaDB, redis: Redis, env: Environment) -> list[str]:
    redis.command("ACL", "SETUSER", "guarded", "on", ">the right one")
    redis.command("ACL", "SETUSER", "few-rights", "on", ">its own", "~*", "+@all", "-eval")
    mysql, shared_cache = mariadb.environment(env["MYSQL_DATABASE"]), redis.environment()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        taken = str(silent.getsockname()[1])
        starts: list[Environment] = [
            {"SYS_ENV": "production"},
            {"SYS_ENV": "prod"},
            {"MYSQL_PASSWORD_FILE": "/run/secrets/mysql_password"},
            mariadb.environment(mariadb.create_database()),
            mysql | {"MYSQL_PORT": str(free_port())},
            mysql | {"MYSQL_PORT": taken},
            mysql | {"MYSQL_PASSWORD": "not this one"},
            mysql | {"MYSQL_SSL_MODE": "required"},
            shared_cache | {"REDIS_PORT": str(free_port())},
            shared_cache | {"REDIS_USERNAME": "guarded", "REDIS_PASSWORD": "not this one"},
            shared_cache | {"REDIS_USERNAME": "few-rights", "REDIS_PASSWORD": "its own"},
            {"PORT": taken},
        ]
        with ThreadPoolExecutor(4) as threads:  # most of their time they wait
            return [message for messages in threads.map(start_and_fail, starts) for message in messages]


def lost_servers(mariadb: MariaDB, redis: Redis, env: Environment) -> list[str]:
    with closing(Proxy(mariadb.port)) as mysql_proxy, closing(Proxy(redis.port)) as redis_proxy:
        env = env | {"MYSQL_PORT": str(mysql_proxy.port), "REDIS_PORT": str(redis_proxy.port)}
        with few_connections(mariadb), Service({**TEST_SETTINGS, **env}) as service:
            with all_connections_taken(mariadb):
                too_many = start_and_fail(env)
            for proxy in (redis_proxy, mysql_proxy):
                proxy.refuse()
                proxy.cut()
                service.client.get("/health/ready")
            redis_proxy.accept()
            service.wait_for_log(message="Redis is back")
            service.stop()
    return too_many + as_on_the_page(messages_of(service), env)


def messages_of(service: Service) -> list[str]:
    return [line["message"] for line in service.lines]


@contextmanager
def few_connections(mariadb: MariaDB) -> Iterator[None]:
    [before] = mariadb.sql("SELECT @@max_connections AS number")
    mariadb.sql("SET GLOBAL max_connections = 10")  # MariaDB takes no less
    yield
    mariadb.sql("SET GLOBAL max_connections = %s", before["number"])


@contextmanager
def all_connections_taken(mariadb: MariaDB) -> Iterator[None]:
    account = {"user": mariadb.username, "password": mariadb.password}
    with ExitStack() as taken:
        with suppress(pymysql.OperationalError):
            while True:
                taken.enter_context(pymysql.connect(host="127.0.0.1", port=mariadb.port, **account))
        yield


def bad_requests() -> list[str]:
    """And the first lines of one that serves."""
    limits = {"LOGIN_RATE_LIMIT": "1/300", "MAX_BODY_BYTES": "1000", "MAX_CONNECTIONS": "1"}
    with Service({**TEST_SETTINGS, **limits}) as service:
        token = TokenKeys(NAME, "another key " * 3, (), 900).issue("an account", "a session")
        service.client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"})
        service.raw(b"GET / HTTP/1.1\r\nCookie: " + b"x" * 70_000 + b"\r\n\r\n")
        for login in ("ada", "ada", "x" * 1000):
            service.client.post("/v1/auth/login", json={"login": login, "password": "a guess"})
        service.stop()
        return messages_of(service)


def a_locked_database() -> list[str]:
    """A request waits for a lock with the only connection, another for the connection, and SIGTERM for both."""
    settings = {"MYSQL_POOL_MAX_SIZE": 1, "MYSQL_POOL_TIMEOUT": 0.2, "SHUTDOWN_TIMEOUT": 0.5}
    with Service({**TEST_SETTINGS, **settings}) as service, ThreadPoolExecutor() as threads:
        account = service.sign_up()
        with closing(sqlite3.connect(service.folder / "data" / "berth.db", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            waiting = [threads.submit(service.log_in, account.username, account.password) for _ in range(2)]
            service.wait_for_log(type="access", status=503)
            service.stop()
        assert all(request.exception() for request in waiting)
        return messages_of(service)


def a_wrong_handler() -> list[str]:
    env = {**os.environ, **TEST_SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", WRONG_HANDLER], cwd=ROOT, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == os.EX_SOFTWARE
    return [str(parse(line)["message"]).replace("<string>", "handlers/notes.py") for line in done.stdout.splitlines()]


def a_stalled_collector() -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", COLLECTOR_STALLS], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [parse(line)["message"] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("line", LINES)
def test_each_line_of_the_page_is_one_that_it_prints(printed: set[str], line: str) -> None:
    assert line in printed


def test_each_row_but_the_one_without_lines_has_one() -> None:
    assert [row[1] for row in ROWS if "`" not in row[1]] == ["none"]
    assert {len(row) for row in ROWS} == {4}
