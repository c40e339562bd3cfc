"""Redis lost, silent, full or refusing: nothing depends on it."""

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.conftest import TEST_SETTINGS, Environment, StartService
from tests.faults.load import QuickService
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


@dataclass
class Instances:
    """Two on one database and one Redis, each with a wire of its own to Redis; `other` is a session that both know."""

    one: Service
    two: Service
    to_one: Proxy
    to_two: Proxy

    def log_in_twice(self) -> tuple[Account, Account]:
        own = self.one.sign_up()
        other = self.one.log_in(own.username, own.password)
        for account in (own, other):
            assert [me(service, account) for service in (self.one, self.two)] == [200, 200]
        return own, other


@pytest.fixture(scope="module")
def instances(mysql_and_redis: Callable[[], Environment]) -> Iterator[Instances]:
    env = TEST_SETTINGS | {"SECRET_KEY": "one key that all instances have in common", "REDIS_TIMEOUT": "0.4"}
    env |= mysql_and_redis()
    to_one, to_two = (Proxy(int(env["REDIS_PORT"])) for _ in range(2))
    with (
        QuickService(env | {"REDIS_PORT": str(to_one.port)}) as one,
        QuickService(env | {"REDIS_PORT": str(to_two.port)}) as two,
    ):
        yield Instances(one, two, to_one, to_two)
    to_one.close()
    to_two.close()


def change_the_password(one: Service, own: Account, _: Account) -> int:
    change = {"current_password": own.password, "new_password": "another password"}
    return one.client.put("/v1/auth/me/password", json=change, headers=own.headers).status_code


def log_out(one: Service, _: Account, other: Account) -> int:
    return one.client.post("/v1/auth/logout", headers=other.headers).status_code


def revoke(one: Service, own: Account, other: Account) -> int:
    return one.client.delete(f"/v1/auth/sessions/{other.session_id}", headers=own.headers).status_code


def use_its_refresh_token_twice(one: Service, _: Account, other: Account) -> int:
    body = {"refresh_token": other.refresh_token}
    statuses = [one.client.post("/v1/auth/refresh", json=body).status_code for _ in range(2)]
    return 204 if statuses == [200, 401] else 0


def delete_the_account(one: Service, own: Account, _: Account) -> int:
    body = {"password": own.password}
    return one.client.request("DELETE", "/v1/auth/me", json=body, headers=own.headers).status_code


def lose(wire: Proxy) -> None:
    wire.refuse()
    wire.cut()


End = Callable[[Service, Account, Account], int]
ENDS: list[End] = [change_the_password, log_out, revoke, use_its_refresh_token_twice, delete_the_account]
OUTAGES: dict[str, tuple[Callable[[Proxy], None], Callable[[Proxy], None]]] = {
    "stalled": (Proxy.stall, Proxy.resume),
    "lost": (lose, Proxy.accept),
}


def redis_is(service: Service, status: str) -> bool:
    found: str = ready(service)["checks"]["redis"]["status"]
    return found == status


@pytest.mark.parametrize(
    ("end", "outage"),
    [*((end, "stalled") for end in ENDS), (change_the_password, "lost")],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_was_ended_while_redis_was_away_is_ended_when_it_is_back_at_every_instance(
    instances: Instances, end: End, outage: str
) -> None:
    """At the other instance, which had Redis all the time, nothing could be changed even before."""
    own, other = instances.log_in_twice()
    away, back = OUTAGES[outage]
    away(instances.to_one)
    try:
        assert end(instances.one, own, other) == 204
        change = {"username": "Written-after", "current_password": other.password}
        written = instances.two.client.patch("/v1/auth/me", json=change, headers=other.headers)
        assert (written.status_code, me(instances.one, other)) == (401, 401)
    finally:
        back(instances.to_one)
    assert within(5, lambda: redis_is(instances.one, "ok"))
    assert [me(service, other) for service in (instances.one, instances.two)] == [401, 401]


def test_a_name_changed_while_redis_was_away_is_seen_when_it_is_back(instances: Instances) -> None:
    own, other = instances.log_in_twice()
    instances.to_one.stall()
    try:
        change = {"username": "Changed-meanwhile", "current_password": own.password}
        assert instances.one.client.patch("/v1/auth/me", json=change, headers=own.headers).status_code == 200
    finally:
        instances.to_one.resume()
    assert within(5, lambda: redis_is(instances.one, "ok"))
    for service in (instances.one, instances.two):
        assert service.client.get("/v1/auth/me", headers=other.headers).json()["username"] == "Changed-meanwhile"


def test_an_instance_that_has_redis_back_first_trusts_nothing_from_before(instances: Instances) -> None:
    """The one that ended the session can't reach Redis yet."""
    own, other = instances.log_in_twice()
    instances.to_one.stall()
    instances.to_two.stall()
    try:
        assert log_out(instances.one, own, other) == 204
        assert me(instances.two, own) == 200
        assert within(5, lambda: redis_is(instances.two, "unavailable"))
        instances.to_two.resume()
        assert within(5, lambda: redis_is(instances.two, "ok"))
        assert [me(instances.two, account) for account in (other, own)] == [401, 200]
    finally:
        instances.to_one.resume()
        instances.to_two.resume()
    assert within(5, lambda: redis_is(instances.one, "ok"))


@pytest.mark.parametrize("forgets", ["what it had not saved", "everything"])
def test_what_a_redis_remembers_from_before_it_crashed_is_not_trusted(
    start_quick_service: StartService, own_redis: Redis, forgets: str
) -> None:
    """A second later nowhere, and where the session was ended not even until then."""
    one = start_quick_service(**settings_of(own_redis), SECRET_KEY="one key that all instances have in common")
    shared: dict[str, Any] = {name: value for name, value in one.env.items() if name not in ("PATH", "PORT")}
    two = start_quick_service(**shared)
    account = one.sign_up()
    assert [me(service, account) for service in (one, two)] == [200, 200]
    if forgets != "everything":
        own_redis.command("SAVE")
    assert one.client.post("/v1/auth/logout", headers=account.headers).status_code == 204
    own_redis.restart()
    database, key = int(one.env["REDIS_DB"]), f"berth:{{{account.id}}}:session:{account.session_id}"
    assert bool(own_redis.command("GET", key, database=database)) == (forgets != "everything")
    assert me(one, account) == 401
    assert within(5, lambda: own_redis.command("GET", key, database=database) == "")
    assert me(two, account) == 401


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
