"""Servers that take what they are sent and say nothing: each wait for one has an end."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from tests.conftest import TEST_SETTINGS, StartService
from tests.support.proxy import Proxy
from tests.support.servers import Redis, free_port
from tests.support.service import Account, Service, run_app

SHORT = {
    "MYSQL_QUERY_TIMEOUT": "0.4",
    "MYSQL_CONNECT_TIMEOUT": "0.4",
    "MYSQL_POOL_TIMEOUT": "0.4",
    "REDIS_TIMEOUT": "0.3",
}
SOON = 4.0  # seconds: all of these together and more, and much less than any default
Ask = Callable[[Service, Account], httpx.Response]

ASK: dict[str, Ask] = {
    "register": lambda service, _: service.client.post(
        "/v1/auth/register", json={"username": "one-more", "email": "one@more.example", "password": "correct horse"}
    ),
    "log in": lambda service, account: service.client.post(
        "/v1/auth/login", json={"login": account.username, "password": account.password}
    ),
    "refresh": lambda service, account: service.client.post(
        "/v1/auth/refresh", json={"refresh_token": account.refresh_token}
    ),
    "read": lambda service, account: service.client.get("/v1/auth/me", headers=account.headers),
    "list": lambda service, account: service.client.get("/v1/auth/sessions", headers=account.headers),
    "log out": lambda service, account: service.client.post("/v1/auth/logout", headers=account.headers),
}
EVERY_REQUEST = pytest.mark.parametrize("name", ASK)


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    started = time.monotonic()
    yield
    assert time.monotonic() - started < seconds


@pytest.fixture
def redis_proxy(redis: Redis) -> Iterator[Proxy]:
    proxy = Proxy(redis.port)
    yield proxy
    proxy.close()


@pytest.fixture
def silenced(
    start_quick_service: StartService, mysql_env: dict[str, Any], mysql_proxy: Proxy, redis: Redis, redis_proxy: Proxy
) -> Service:
    """A service that works, and reaches both servers through proxies that can fall silent."""
    ports = {"MYSQL_PORT": mysql_proxy.port, "REDIS_PORT": redis_proxy.port}
    return start_quick_service(**{**mysql_env, **redis.environment(), **ports, **SHORT})


@EVERY_REQUEST
def test_a_redis_that_falls_silent_costs_a_request_one_time_out(
    silenced: Service, redis_proxy: Proxy, name: str
) -> None:
    account = silenced.sign_up()
    redis_proxy.stall()
    with at_most(SOON):
        assert ASK[name](silenced, account).is_success


@EVERY_REQUEST
def test_a_database_that_falls_silent_is_a_503_in_time(silenced: Service, mysql_proxy: Proxy, name: str) -> None:
    account = silenced.sign_up()
    mysql_proxy.stall()
    with at_most(SOON):
        answer = ASK[name](silenced, account)
    assert (answer.status_code, "retry-after" in answer.headers) == (503, True)


def test_a_database_that_is_silent_when_a_connection_is_made_is_a_503_in_time(
    silenced: Service, mysql_proxy: Proxy
) -> None:
    account = silenced.sign_up()
    mysql_proxy.cut()  # what is asked next connects anew
    mysql_proxy.stall()
    with at_most(SOON):
        assert ASK["list"](silenced, account).status_code == 503


@pytest.mark.parametrize(
    ("silent", "command"),
    [
        ("REDIS_PORT", ()),
        ("MYSQL_PORT", ()),
        ("MYSQL_PORT", ("migrate",)),
        ("MYSQL_PORT", ("run", "dev.berth.sessions.purge")),
    ],
    ids=str,
)
def test_a_server_that_is_silent_from_the_start_is_told_at_the_end_of_startup_timeout(
    mysql_env: dict[str, str], redis: Redis, silent: str, command: tuple[str, ...]
) -> None:
    env = {**TEST_SETTINGS, **mysql_env, **redis.environment(), **SHORT, "STARTUP_TIMEOUT": "1"}
    proxy = Proxy(int(env[silent]))
    proxy.stall()
    with at_most(10):
        done = run_app(*command, env=env | {silent: str(proxy.port), "PORT": str(free_port())}, timeout=20)
    proxy.close()
    assert done.returncode == os.EX_UNAVAILABLE, done.stdout


def test_a_stop_waits_for_no_silent_server(silenced: Service, mysql_proxy: Proxy, redis_proxy: Proxy) -> None:
    silenced.sign_up()
    mysql_proxy.stall()
    redis_proxy.stall()
    with at_most(8):
        assert silenced.stop() == 0
