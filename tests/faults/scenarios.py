"""Scenarios on an open database, and what other clients of the server do meanwhile."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import httpx
import pymysql
import uvloop

from infra.sql.database import Connection, Database, open_database
from settings import Settings, load
from tests.conftest import TEST_SETTINGS
from tests.support.servers import MariaDB
from tests.support.service import Account, Service, run_app

Environment = dict[str, Any]
Result = TypeVar("Result")
Scenario = Callable[[Database], Awaitable[Result]]
NEW_LOOP = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


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
        await transaction.execute("DO 1")


@contextmanager
def locked_row(server: MariaDB, env: Environment, account_id: str) -> Iterator[None]:
    """Another client of the database holds the account's row."""
    connection = pymysql.connect(unix_socket=str(server.unix_socket), user="root", database=env["MYSQL_DATABASE"])
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT id FROM accounts WHERE id = %s FOR UPDATE", (account_id,))
        yield
        connection.rollback()


def rename(service: Service, account: Account, name: str) -> httpx.Response:
    change = {"username": name, "current_password": account.password}
    return service.client.patch("/v1/auth/me", json=change, headers=account.headers)


def list_sessions(service: Service, account: Account) -> httpx.Response:
    return service.client.get("/v1/auth/sessions", headers=account.headers)


def check_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
