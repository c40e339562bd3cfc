"""A connection that breaks under a statement: what only reads is asked once more, what writes never is."""

from typing import Any

import pytest

from infra.base.errors import Unavailable
from infra.sql.database import Database
from tests.conftest import StartService
from tests.faults.scenarios import Environment, list_sessions, play
from tests.support.proxy import Proxy


@pytest.fixture
def through(mysql_env: Environment, mysql_proxy: Proxy) -> Environment:
    """Settings of a service that reaches the database through the proxy.

    On one connection: the next is made anew, so that the second answer that is lost is a server's greeting.
    """
    return {**mysql_env, "MYSQL_PORT": str(mysql_proxy.port), "MYSQL_POOL_MAX_SIZE": "1"}


@pytest.mark.parametrize(("lost", "status"), [(0, 200), (1, 200), (2, 503)])
def test_a_read_is_tried_once_more_and_no_more(
    start_service: StartService, through: Environment, mysql_proxy: Proxy, lost: int, status: int
) -> None:
    service = start_service(**through, ACCESS_TOKEN_TTL=1000)
    account = service.sign_up()
    assert list_sessions(service, account).status_code == 200
    if lost:
        mysql_proxy.truncate(0, times=lost)
    assert service.client.get("/v1/auth/me", headers=account.headers).status_code == status
    assert mysql_proxy.times <= 0, "fewer answers were lost than should have been"
    assert service.client.get("/v1/auth/me", headers=account.headers).status_code == 200


async def make_counter(database: Database) -> None:
    await database.execute("CREATE TABLE counter (number INT)")
    await database.execute("INSERT INTO counter VALUES (0)")


async def number(database: Database) -> Any:
    [row] = await database.fetch_all("SELECT number FROM counter")
    return row[0]


COUNT = "UPDATE counter SET number = number + 1"


def test_a_write_whose_answer_was_lost_is_not_repeated(through: Environment, mysql_proxy: Proxy) -> None:
    async def scenario(database: Database) -> Any:
        await make_counter(database)
        mysql_proxy.truncate(0)
        with pytest.raises(Unavailable):
            await database.execute(COUNT)
        assert mysql_proxy.times == 0
        return await number(database)

    assert play(scenario, through) == 1


def test_a_transaction_whose_begin_was_lost_begins_anew(through: Environment, mysql_proxy: Proxy) -> None:
    async def scenario(database: Database) -> Any:
        await make_counter(database)
        mysql_proxy.truncate(0)
        async with database.transaction() as transaction:
            assert mysql_proxy.times == 0
            await transaction.execute(COUNT)
        return await number(database)

    assert play(scenario, through) == 1


def test_a_transaction_that_can_not_begin_twice_is_given_up(through: Environment, mysql_proxy: Proxy) -> None:
    async def scenario(database: Database) -> Any:
        await make_counter(database)
        mysql_proxy.truncate(0, times=2)
        with pytest.raises(Unavailable):
            async with database.transaction() as transaction:
                await transaction.execute(COUNT)
        return await number(database)

    assert play(scenario, through) == 0


@pytest.mark.parametrize("statement", ["SELECT number FROM counter", COUNT])
def test_within_a_transaction_nothing_is_repeated_and_all_is_undone(
    through: Environment, mysql_proxy: Proxy, statement: str
) -> None:
    async def scenario(database: Database) -> Any:
        await make_counter(database)
        with pytest.raises(Unavailable):
            async with database.transaction() as transaction:
                await transaction.execute(COUNT)
                mysql_proxy.truncate(0)
                await transaction.fetch_all(statement)
        assert mysql_proxy.times == 0
        return await number(database)

    assert play(scenario, through) == 0


def test_a_commit_whose_answer_was_lost_is_not_repeated(through: Environment, mysql_proxy: Proxy) -> None:
    async def scenario(database: Database) -> Any:
        await make_counter(database)
        with pytest.raises(Unavailable):
            async with database.transaction() as transaction:
                await transaction.execute(COUNT)
                mysql_proxy.truncate(0)
        return await number(database)

    assert play(scenario, through) in (0, 1)
