"""What may happen to MariaDB, Redis and the wires to them, each while the service works. `make soak` repeats it."""

import asyncio
import time
from collections.abc import Iterator

import pytest

from tests.conftest import TEST_SETTINGS
from tests.faults.load import Load, QuickService, new_account, rows_of
from tests.faults.troubles import Servers, seconds_until, troubles
from tests.support.servers import MariaDB, Redis
from tests.support.service import run_app

LASTS = 0.8  # seconds; the time-outs below are shorter
TIMES = {
    "MYSQL_QUERY_TIMEOUT": "0.6",
    "MYSQL_CONNECT_TIMEOUT": "0.6",
    "MYSQL_POOL_TIMEOUT": "0.6",
    "REDIS_TIMEOUT": "0.3",
}
NAMES = (
    *("MariaDB killed", "MariaDB paused", "MariaDB's connections killed", "MariaDB read-only", "MariaDB full"),
    *("wire to MariaDB cut", "wire to MariaDB stalled", "wire to MariaDB slow", "answer of MariaDB truncated"),
    *("Redis killed", "Redis paused", "Redis's connections killed", "Redis read-only", "Redis full"),
    *("wire to Redis cut", "wire to Redis stalled", "answer of Redis truncated"),
)


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    """Servers that tests here stop and reconfigure; each trouble ends with the test."""
    with MariaDB() as mariadb, Redis() as redis:
        own = Servers(mariadb, redis)
        yield own
        own.close()


@pytest.fixture(scope="module")
def quick(servers: Servers) -> Iterator[QuickService]:
    env = {**TEST_SETTINGS, **TIMES, **servers.environment(servers.mariadb.create_database())}
    assert run_app("migrate", env=env).returncode == 0
    with QuickService(env) as service:
        yield service


CODES = {"ok": 200, "degraded": 200, "unavailable": 503}


def readiness(service: QuickService) -> str:
    """What it says; its status code must say the same."""
    answer = service.client.get("/health/ready")
    status: str = answer.json()["status"]
    assert answer.status_code == CODES[status]
    return status


def works(service: QuickService) -> bool:
    return readiness(service) == "ok" and service.client.post("/v1/auth/register", json=new_account()).is_success


def expected_readiness(name: str) -> set[str]:
    server, what = name.removeprefix("wire to ").split(" ", 1)
    if server == "MariaDB" and what in ("killed", "paused", "stalled"):
        return {"unavailable"}
    if server == "Redis" and what in ("killed", "paused", "stalled", "read-only", "full"):
        return {"degraded"}
    return {"ok", "degraded", "unavailable"}


@pytest.mark.parametrize("name", NAMES)
def test_nothing_acknowledged_is_lost_and_all_works_within_5_seconds_of_its_end(
    servers: Servers, quick: QuickService, name: str
) -> None:
    begin, end = troubles(servers)[name]
    load = Load(quick.port)

    async def play() -> tuple[str, float]:
        async with load.running(clients=6):
            await asyncio.sleep(0.3)
            await asyncio.to_thread(begin)
            await asyncio.sleep(LASTS)
            during = await asyncio.to_thread(readiness, quick)
            await asyncio.to_thread(end)
            return during, await asyncio.to_thread(seconds_until, lambda: works(quick), 15)

    during, seconds = asyncio.run(play())
    assert not any(load.check(rows_of(quick.env, servers.mariadb)).values()), load.wrong[:3]
    assert len(load.accounts) > 0
    assert load.broken == 0
    assert during in expected_readiness(name)
    assert seconds <= 5
    assert max(load.seconds) < 5
    assert set(load.statuses) <= ({200, 201} if "Redis" in name else {200, 201, 401, 503})


def test_all_troubles_are_played(servers: Servers) -> None:
    assert set(NAMES) == set(troubles(servers))


def test_a_demoted_primarys_connections_are_not_used_again(servers: Servers, quick: QuickService) -> None:
    account = quick.sign_up()
    with MariaDB() as promoted:
        database = quick.env["MYSQL_DATABASE"]
        promoted.sql(f"CREATE DATABASE {database}")
        for row in servers.mariadb.sql(f"SHOW TABLES IN {database}"):
            [table] = row.values()
            promoted.sql(
                servers.mariadb.sql(f"SHOW CREATE TABLE {database}.{table}")[0]["Create Table"], database=database
            )
            promoted.sql(f"ALTER TABLE {database}.{table} FORCE")
        fill_pool(quick, account.access_token)
        servers.mariadb.sql("SET GLOBAL read_only = 1")
        servers.to_mariadb.target = promoted.port  # its name leads elsewhere now; open connections stay
        try:
            statuses = [quick.client.post("/v1/auth/register", json=new_account()).status_code for _ in range(10)]
        finally:
            servers.mariadb.sql("SET GLOBAL read_only = 0")
            servers.to_mariadb.target = servers.mariadb.port
            servers.to_mariadb.cut()
    assert statuses == [503] + [201] * 9


def fill_pool(quick: QuickService, token: str) -> None:
    """Makes the pool open several connections."""
    load = Load(quick.port)

    async def many() -> None:
        await asyncio.gather(*(load.ask("GET", "/v1/auth/sessions", token=token) for _ in range(30)))

    asyncio.run(many())


def test_a_redis_that_is_loading_its_data_is_not_used_until_it_has(servers: Servers, quick: QuickService) -> None:
    redis = servers.redis
    redis.command("EVAL", "for i = 1, 3000 do redis.call('SET', i, i) end", 0)
    redis.command("SAVE")
    redis.kill()
    slowly = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    redis.arguments += slowly
    try:
        started = time.monotonic()
        redis.start()  # returns when it has loaded
        assert time.monotonic() - started > 1
    finally:
        redis.arguments = redis.arguments[: -len(slowly)]
        redis.command("FLUSHALL")
        redis.command("SAVE")
    assert seconds_until(lambda: works(quick), 15) <= 5
    assert any("LOADING" in line["message"].upper() for line in quick.log(severity="WARNING"))
