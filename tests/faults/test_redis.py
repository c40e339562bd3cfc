"""Redis lost, silent, full or refusing: nothing depends on it."""

import hashlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import StartService
from tests.support.proxy import Proxy
from tests.support.servers import Redis
from tests.support.service import Account, Service


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture
def proxy(redis: Redis) -> Iterator[Proxy]:
    proxy = Proxy(redis.port)
    yield proxy
    proxy.close()


def me(service: Service, account: Account) -> int:
    return service.client.get("/v1/auth/me", headers=account.headers).status_code


def ready(service: Service) -> dict[str, Any]:
    answer = service.client.get("/health/ready")
    body: dict[str, Any] = answer.json()
    return body | {"code": answer.status_code}


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)
    return condition()


def settings_of(redis: Redis) -> dict[str, Any]:
    return dict(redis.environment())


def test_without_redis_everything_works_and_readiness_is_degraded(
    start_service: StartService, own_redis: Redis
) -> None:
    service = start_service(**settings_of(own_redis))
    before = service.sign_up()
    own_redis.stop()
    assert within(5, lambda: ready(service)["status"] == "degraded")
    assert ready(service)["code"] == 200
    account = service.sign_up()
    assert (me(service, before), me(service, account)) == (200, 200)
    assert service.client.post("/v1/auth/logout", headers=account.headers).status_code == 204
    assert me(service, account) == 401


def test_killed_connections_cost_no_request_and_no_slot(start_service: StartService, redis: Redis) -> None:
    service = start_service(**settings_of(redis), REDIS_MAX_CONNECTIONS=2)
    account = service.sign_up()
    for _ in range(6):
        redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert me(service, account) == 200
        assert within(5, lambda: ready(service)["status"] == "ok")


def test_a_silent_redis_costs_one_time_out_and_then_nothing(start_service: StartService, proxy: Proxy) -> None:
    service = start_service("mysql+redis", REDIS_PORT=proxy.port, REDIS_TIMEOUT="0.5")
    account = service.sign_up()
    proxy.stall()
    assert me(service, account) == 200
    assert within(5, lambda: ready(service)["checks"]["redis"]["status"] == "unavailable")
    started = time.monotonic()
    assert [me(service, account) for _ in range(5)] == [200] * 5
    assert time.monotonic() - started < 2  # five time-outs would take 2.5 s
    proxy.resume()
    assert within(5, lambda: ready(service)["status"] == "ok")


def test_a_count_whose_answer_was_lost_is_not_repeated(start_service: StartService, proxy: Proxy, redis: Redis) -> None:
    settings = settings_of(redis) | {"REDIS_PORT": proxy.port, "LOGIN_RATE_LIMIT": "100/60"}
    service = start_service(**settings)
    account = service.sign_up()
    key = f"berth:{{127.0.0.1}}:sign-ins:{hashlib.sha256(account.username.encode()).hexdigest()}"
    for attempts in range(1, 5):
        proxy.truncate(0)
        body = {"login": account.username, "password": "wrong one"}
        assert service.client.post("/v1/auth/login", json=body).status_code == 401
        counted = redis.command("GET", key, database=int(service.env["REDIS_DB"]))
        assert int(str(counted or 0)) <= attempts
        assert within(5, lambda: ready(service)["status"] == "ok")
    assert int(str(counted)) >= 2  # now and then it is the answer of a ping that is lost


def test_a_redis_whose_password_has_changed_is_lost_and_nothing_else(
    start_service: StartService, own_redis: Redis
) -> None:
    service = start_service(**settings_of(own_redis))
    account = service.sign_up()
    own_redis.command("CONFIG", "SET", "requirepass", "another")
    own_redis.password = "another"
    own_redis.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert me(service, account) == 200
    assert within(5, lambda: ready(service)["status"] == "degraded")
    assert me(service, service.sign_up()) == 200
    own_redis.command("CONFIG", "SET", "requirepass", "")
    own_redis.password = None
    assert within(5, lambda: ready(service)["status"] == "ok")


def test_a_full_redis_stays_lost_until_it_has_room(start_service: StartService, own_redis: Redis) -> None:
    service = start_service(**settings_of(own_redis))
    account = service.sign_up()
    own_redis.command("CONFIG", "SET", "maxmemory", "1")
    assert within(5, lambda: ready(service)["status"] == "degraded")
    for _ in range(20):
        assert (me(service, account), ready(service)["status"]) == (200, "degraded")
        time.sleep(0.1)
    assert len([line for line in service.log(type="system") if "Redis is" in line["message"]]) == 1
    own_redis.command("CONFIG", "SET", "maxmemory", "0")
    assert within(5, lambda: ready(service)["status"] == "ok")


def guess(service: Service, account: Account) -> int:
    body = {"login": account.username, "password": "wrong one"}
    return service.client.post("/v1/auth/login", json=body).status_code


def restart(service: Service, redis: Redis, meanwhile: Callable[[], None] = lambda: None) -> None:
    redis.stop()
    assert within(5, lambda: ready(service)["status"] == "degraded")
    meanwhile()
    redis.start()
    assert within(5, lambda: ready(service)["status"] == "ok")


def test_a_redis_that_comes_back_empty_is_told_what_was_counted_before_and_meanwhile(
    start_service: StartService, own_redis: Redis
) -> None:
    same: dict[str, Any] = {"LOGIN_RATE_LIMIT": "3/300", "REGISTER_RATE_LIMIT": "2/300", "SECRET_KEY": "k" * 32}
    service = start_service("mysql+redis", **settings_of(own_redis), **same)
    account = service.sign_up()
    assert guess(service, account) == 401
    restart(service, own_redis, meanwhile=lambda: check(guess(service, account), 401))
    assert guess(service, account) == 401
    restart(service, own_redis)
    assert guess(service, account) == 429
    database: dict[str, Any] = {name: text for name, text in service.env.items() if name.startswith(("MYSQL", "REDIS"))}
    other = start_service(**database, **same)
    assert guess(other, account) == 429
    assert [register(other, name) for name in ("the-second", "the-third")] == [201, 429]


def register(service: Service, name: str) -> int:
    body = {"username": name, "email": f"{name}@example.com", "password": "a long password"}
    return service.client.post("/v1/auth/register", json=body).status_code


def check(found: object, expected: object) -> None:
    assert found == expected
