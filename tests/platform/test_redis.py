"""What is asked of Redis: keys, a password, a cluster."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import StartService
from tests.support.servers import Redis, RedisCluster
from tests.support.service import Account, Service


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def me(service: Service, account: Account) -> int:
    return service.client.get("/v1/auth/me", headers=account.headers).status_code


def ready(service: Service) -> dict[str, Any]:
    answer = service.client.get("/health/ready")
    body: dict[str, Any] = answer.json()
    return body | {"code": answer.status_code}


def settings_of(redis: Redis) -> dict[str, Any]:
    return dict(redis.environment())


def test_every_key_has_a_hash_tag_and_lives_a_minute_at_most(start_service: StartService, own_redis: Redis) -> None:
    service = start_service(**settings_of(own_redis), LOGIN_RATE_LIMIT="1000/60", REGISTER_RATE_LIMIT="1000/60")
    account = service.sign_up()
    service.client.post("/v1/auth/login", json={"login": account.username, "password": "wrong one"})
    me(service, account)
    service.client.post("/v1/auth/logout", headers=account.headers)
    database = int(service.env["REDIS_DB"])
    keys: Any = own_redis.command("KEYS", "*", database=database)
    names = [key.decode() if isinstance(key, bytes) else key for key in keys]
    assert len(names) >= 3
    assert all("{" in name and "}" in name for name in names)
    lives = [int(str(own_redis.command("TTL", name, database=database))) for name in names]
    assert all(-2 <= seconds <= 60 and seconds != -1 for seconds in lives)  # -2: gone, -1: for ever


@pytest.mark.parametrize("password", [None, "s3cret/%@:x"], ids=["open", "with a password"])
def test_a_cluster_works_like_a_single_server(start_service: StartService, password: str | None) -> None:
    with RedisCluster(password=password) as cluster:
        settings: dict[str, Any] = dict(cluster.environment())
        service = start_service(**settings)
        account = service.sign_up()
        assert [me(service, account) for _ in range(3)] == [200] * 3
        service.client.post("/v1/auth/logout", headers=account.headers)
        assert me(service, account) == 401
        assert ready(service)["status"] == "ok"
        assert [line["message"] for line in service.log(type="system", severity="WARNING")] == []


def test_a_password_of_redis_is_used(start_service: StartService) -> None:
    with Redis(password="s3cret/%@:x") as server:
        assert ready(start_service(**settings_of(server)))["status"] == "ok"
