"""Redis as a cache: what it holds, and that nothing depends on it."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.conftest import StartService
from tests.proxy import Proxy
from tests.servers import MariaDB, Redis, RedisCluster
from tests.service import Account, Service, run_app


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


def test_me_is_answered_from_redis_when_the_database_is_lost(start_service: StartService, redis: Redis) -> None:
    with MariaDB() as mariadb:
        service = start_service(**mysql_of(mariadb), **settings_of(redis))
        account = service.sign_up()
        assert me(service, account) == 200
        mariadb.stop()
        assert me(service, account) == 200
        assert service.client.get("/v1/auth/sessions", headers=account.headers).status_code == 503


def mysql_of(mariadb: MariaDB) -> dict[str, Any]:
    env = mariadb.environment(mariadb.create_database())
    assert run_app("migrate", env={"SYS_ENV": "test", **env}).returncode == 0
    return dict(env)


def settings_of(redis: Redis) -> dict[str, Any]:
    return dict(redis.environment())


def test_every_key_has_a_hash_tag_and_lives_a_minute_at_most(start_service: StartService, own_redis: Redis) -> None:
    service = start_service(**settings_of(own_redis), LOGIN_RATE_LIMIT="1000/60")
    account = service.sign_up()
    service.client.post("/v1/auth/login", json={"login": account.username, "password": "wrong one"})
    me(service, account)
    service.client.post("/v1/auth/logout", headers=account.headers)
    database = int(service.env["REDIS_DB"])
    keys: Any = own_redis.command("KEYS", "*", database=database)
    names = [key.decode() if isinstance(key, bytes) else key for key in keys]
    assert len(names) >= 3
    assert all("{" in name and "}" in name for name in names)
    assert all(0 < int(str(own_redis.command("TTL", name, database=database))) <= 60 for name in names)


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


def test_redis_is_used_again_within_5_seconds_of_its_return(start_service: StartService, own_redis: Redis) -> None:
    service = start_service(**settings_of(own_redis))
    own_redis.stop()
    assert within(5, lambda: ready(service)["status"] == "degraded")
    own_redis.restart()
    assert within(5, lambda: ready(service)["status"] == "ok")
    account = service.sign_up()
    me(service, account)
    database = int(service.env["REDIS_DB"])
    assert own_redis.command("EXISTS", f"berth:{{{account.id}}}:account", database=database) == 1


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


def test_connections_cut_many_times_are_replaced(start_service: StartService, proxy: Proxy) -> None:
    service = start_service("mysql+redis", REDIS_PORT=proxy.port, REDIS_MAX_CONNECTIONS=2)
    account = service.sign_up()
    for _ in range(5):
        proxy.cut()
        assert me(service, account) == 200
        assert within(5, lambda: ready(service)["status"] == "ok")


def test_requests_under_way_while_connections_are_cut_are_all_answered(
    start_service: StartService, redis: Redis, proxy: Proxy
) -> None:
    settings = settings_of(redis) | {"REDIS_PORT": proxy.port, "REDIS_MAX_CONNECTIONS": 2}
    service = start_service(**settings)
    account = service.sign_up()
    answers: list[int] = []
    stopping = threading.Event()

    def ask() -> None:
        while not stopping.is_set():
            answers.append(me(service, account))

    workers = [threading.Thread(target=ask) for _ in range(4)]
    for worker in workers:
        worker.start()
    for number in range(8):
        time.sleep(0.2)
        proxy.truncate(number)
        if number % 2:
            proxy.cut()
    stopping.set()
    for worker in workers:
        worker.join(10)
    assert len(answers) > 50
    assert set(answers) == {200}
    assert within(5, lambda: ready(service)["status"] == "ok")


def test_a_count_whose_answer_was_lost_is_not_repeated(start_service: StartService, proxy: Proxy, redis: Redis) -> None:
    settings = settings_of(redis) | {"REDIS_PORT": proxy.port, "LOGIN_RATE_LIMIT": "100/60"}
    service = start_service(**settings)
    account = service.sign_up()
    key = f"berth:attempts:{{{account.id}}}"
    for attempts in range(1, 5):
        proxy.truncate(0)
        body = {"login": account.username, "password": "wrong one"}
        assert service.client.post("/v1/auth/login", json=body).status_code == 401
        counted = redis.command("GET", key, database=int(service.env["REDIS_DB"]))
        assert int(str(counted or 0)) <= attempts
        assert within(5, lambda: ready(service)["status"] == "ok")
    assert int(str(counted)) >= 2  # now and then it is the answer of a ping that is lost


def test_a_change_on_one_instance_is_seen_at_once_on_another(start_service: StartService) -> None:
    one = start_service("mysql+redis")
    same: dict[str, Any] = {name: value for name, value in one.env.items() if name.startswith(("MYSQL", "REDIS"))}
    same["SECRET_KEY"] = (one.folder / "data" / "secret_key").read_text().strip()
    two = start_service(**same)
    account = one.sign_up()
    assert me(two, account) == 200
    one.client.patch("/v1/auth/me", json={"username": "Seen-at-once"}, headers=account.headers)
    assert two.client.get("/v1/auth/me", headers=account.headers).json()["username"] == "Seen-at-once"
    one.client.post("/v1/auth/logout", headers=account.headers)
    assert me(two, account) == 401


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
