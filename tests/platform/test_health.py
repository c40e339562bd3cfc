"""Probes: who asks, what they see. More of lost servers is in tests/faults."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Environment, StartService
from tests.support.proxy import Proxy
from tests.support.servers import Redis
from tests.support.service import Service


@pytest.mark.parametrize("path", ["/health/live", "/health/startup"])
def test_live_and_startup_ask_no_other_system(service: Service, path: str) -> None:
    answer = service.client.get(path)
    assert (answer.status_code, answer.json()) == (200, {"status": "ok", "checks": {}})


def test_ready_tells_of_each_system_and_how_long_it_took(service: Service, backend: str) -> None:
    answer = service.client.get("/health/ready")
    health = answer.json()
    assert (answer.status_code, set(health), health["status"]) == (200, {"status", "checks"}, "ok")
    assert set(health["checks"]) == ({"database"} if backend == "sqlite" else {"database", "redis"})
    for check in health["checks"].values():
        assert set(check) == {"status", "duration_ms"}
        assert check["status"] == "ok"
        assert 0 < check["duration_ms"] < 1000


@pytest.mark.parametrize("path", ["/health/live", "/health/startup", "/health/ready"])
def test_a_probe_may_be_a_head_request(service: Service, path: str) -> None:
    answer = service.client.head(path)
    assert (answer.status_code, answer.content) == (200, b"")


def cut_off(proxy: Proxy) -> None:
    proxy.refuse()
    proxy.cut()


def whole_again(proxy: Proxy) -> None:
    proxy.accept()


@pytest.mark.parametrize(
    ("lose", "find"), [(cut_off, whole_again), (Proxy.stall, Proxy.resume)], ids=["refuses", "says nothing"]
)
def test_while_the_database_is_lost_ready_is_a_503_that_comes_in_time_for_a_kubelet(
    start_service: StartService,
    mysql_env: Environment,
    mysql_proxy: Proxy,
    lose: Callable[[Proxy], None],
    find: Callable[[Proxy], None],
) -> None:
    settings: dict[str, Any] = {**mysql_env, "MYSQL_PORT": mysql_proxy.port}
    service = start_service(**settings)  # with a query's time-out of 10 s
    assert service.client.get("/health/ready").status_code == 200
    lose(mysql_proxy)
    started = time.monotonic()
    answer = service.client.get("/health/ready")
    assert time.monotonic() - started < 3
    health = answer.json()
    assert (answer.status_code, health["status"], health["checks"]["database"]["status"]) == (503, *["unavailable"] * 2)
    assert service.client.get("/health/live").status_code == 200
    assert service.client.get("/health/startup").status_code == 200
    find(mysql_proxy)
    deadline = time.monotonic() + 5
    while service.client.get("/health/ready").status_code != 200:
        assert time.monotonic() < deadline


def test_while_redis_alone_is_lost_ready_is_a_200_that_says_so(start_service: StartService, redis: Redis) -> None:
    proxy = Proxy(redis.port)
    settings: dict[str, Any] = {**redis.environment(), "REDIS_PORT": proxy.port, "REDIS_TIMEOUT": "0.3"}
    service = start_service(**settings)
    cut_off(proxy)
    answer = service.client.get("/health/ready")
    proxy.close()
    health = answer.json()
    assert (answer.status_code, health["status"]) == (200, "degraded")
    assert {name: check["status"] for name, check in health["checks"].items()} == {
        "database": "ok",
        "redis": "unavailable",
    }
