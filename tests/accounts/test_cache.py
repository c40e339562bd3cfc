"""What instances keep in Redis: never an account or a session as it was before a change."""

import asyncio
import json
import re
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import pymysql
import pytest

from handlers.accounts.session_cache import SessionCache
from infra.redis.store import open_store
from settings import load
from tests.conftest import TEST_SETTINGS, Environment, Sql, StartService
from tests.faults.scenarios import connections, locked_row
from tests.support.servers import MariaDB, Redis, wait_until
from tests.support.service import Account, Service, run_app

Result = TypeVar("Result")

KEY = {"SECRET_KEY": "one key that all instances have in common"}


@pytest.fixture(scope="module")
def instances(mysql_and_redis: Callable[[], Environment]) -> Iterator[tuple[Service, Service]]:
    """Two on one database and one Redis."""
    env = TEST_SETTINGS | KEY | mysql_and_redis()
    with Service(env) as one, Service(env) as two:
        yield one, two


@pytest.fixture
def one(instances: tuple[Service, Service]) -> Service:
    return instances[0]


@pytest.fixture
def two(instances: tuple[Service, Service]) -> Service:
    return instances[1]


@pytest.fixture
def known(one: Service, two: Service) -> Account:
    """An account whose session both instances have looked at."""
    account = one.sign_up()
    assert [me(service, account).status_code for service in (one, two)] == [200, 200]
    return account


def me(service: Service, account: Account) -> httpx.Response:
    return service.client.get("/v1/auth/me", headers=account.headers)


def change_me(service: Service, account: Account, **changes: str) -> httpx.Response:
    body = {"current_password": account.password} | changes
    return service.client.patch("/v1/auth/me", json=body, headers=account.headers)


def sessions(service: Service, account: Account) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = service.client.get("/v1/auth/sessions", headers=account.headers).json()["items"]
    return items


def test_a_change_of_the_account_is_seen_at_once_at_another_instance(
    one: Service, two: Service, known: Account
) -> None:
    changed = change_me(one, known, username="Changed-at-one")
    assert me(two, known).json() == changed.json()


def test_an_account_from_redis_is_the_same_as_from_the_database(one: Service, redis: Redis, known: Account) -> None:
    cached = me(one, known).json()
    redis.command("DEL", account_key(known), database=int(one.env["REDIS_DB"]))
    assert me(one, known).json() == cached


def account_key(account: Account) -> str:
    return f"berth:{{{account.id}}}:account"


def test_a_session_that_logged_out_is_refused_at_once_at_another_instance(
    one: Service, two: Service, known: Account
) -> None:
    one.client.post("/v1/auth/logout", headers=known.headers)
    assert me(two, known).status_code == 401


def test_a_revoked_session_is_refused_at_once_at_another_instance(one: Service, two: Service, known: Account) -> None:
    other = one.log_in(known.username, known.password)
    assert me(two, other).status_code == 200
    [revoked] = [item["id"] for item in sessions(one, other) if item["current"]]
    assert one.client.delete(f"/v1/auth/sessions/{revoked}", headers=known.headers).status_code == 204
    assert me(two, other).status_code == 401


def test_a_session_whose_refresh_token_was_used_twice_is_refused_at_once_at_another_instance(
    one: Service, two: Service, known: Account
) -> None:
    body = {"refresh_token": known.refresh_token}
    statuses = [one.client.post("/v1/auth/refresh", json=body).status_code for _ in range(2)]
    assert (statuses, me(two, known).status_code) == ([200, 401], 401)


def test_a_deleted_account_is_refused_at_once_at_another_instance(one: Service, two: Service, known: Account) -> None:
    body = {"password": known.password}
    assert one.client.request("DELETE", "/v1/auth/me", json=body, headers=known.headers).status_code == 204
    assert me(two, known).status_code == 401


def test_a_new_password_ends_other_sessions_at_once_at_another_instance(
    one: Service, two: Service, known: Account
) -> None:
    other = one.log_in(known.username, known.password)
    assert me(two, other).status_code == 200
    change = {"current_password": known.password, "new_password": "another password"}
    assert one.client.put("/v1/auth/me/password", json=change, headers=known.headers).status_code == 204
    assert (me(two, other).status_code, me(two, known).status_code) == (401, 200)


WRITES: dict[str, Callable[[Account], tuple[str, str, object]]] = {
    "change the name": lambda a: ("PATCH", "me", {"username": "Thief", "current_password": a.password}),
    "delete the account": lambda a: ("DELETE", "me", {"password": a.password}),
    "change the password": lambda a: (
        "PUT",
        "me/password",
        {"current_password": a.password, "new_password": "a thief's own"},
    ),
    "revoke a session": lambda a: ("DELETE", f"sessions/{a.session_id}", None),
    "log out": lambda _: ("POST", "logout", None),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_whatever_changes_data_is_refused_to_a_session_that_only_redis_takes_for_alive(
    two: Service, sql: Sql, known: Account, write: Callable[[Account], tuple[str, str, object]]
) -> None:
    sql(two, f"DELETE FROM sessions WHERE id = '{known.session_id}'")
    assert me(two, known).status_code == 200  # a read may be a minute behind
    method, path, body = write(known)
    answer = two.client.request(method, f"/v1/auth/{path}", json=body, headers=known.headers)
    assert answer.status_code == 401
    assert sql(two, f"SELECT username FROM accounts WHERE id = '{known.id}'") == [{"username": known.username}]


@pytest.mark.parametrize("write", ["change the name", "delete the account", "change the password"])
def test_a_session_that_ends_while_its_password_is_looked_at_changes_nothing(
    start_service: StartService, mariadb: MariaDB, mysql_env: Environment, sql: Sql, write: str
) -> None:
    service = start_service(**settings(mysql_env))
    account = service.sign_up()
    method, path, body = WRITES[write](account)
    [before] = sql(service, f"SELECT username, password_hash FROM accounts WHERE id = '{account.id}'")
    with ThreadPoolExecutor(1) as threads:
        with locked_row(mariadb, mysql_env, account.id):  # in the transaction, so that the session was alive before
            waiting = threads.submit(
                service.client.request, method, f"/v1/auth/{path}", json=body, headers=account.headers
            )
            wait_until(lambda: waits_for_the_row(mariadb, mysql_env), "the statement that waits", within=10)
            sql(service, f"DELETE FROM sessions WHERE id = '{account.session_id}'")
        assert waiting.result().status_code == 401
    assert sql(service, f"SELECT username, password_hash FROM accounts WHERE id = '{account.id}'") == [before]


def waits_for_the_row(mariadb: MariaDB, env: Environment) -> bool:
    return any((row["info"] or "").startswith(("UPDATE", "DELETE")) for row in connections(mariadb, env))


def test_redis_has_forgotten_before_the_end_is_committed(
    one: Service, redis: Redis, mariadb: MariaDB, known: Account
) -> None:
    """Neither a lost answer to COMMIT nor a crash after it may leave the session there."""
    key = f"berth:{{{known.id}}}:session:{known.session_id}"
    connection = pymysql.connect(unix_socket=str(mariadb.unix_socket), user="root")
    with connection, connection.cursor() as cursor, ThreadPoolExecutor(1) as threads:
        cursor.execute("BACKUP STAGE START")
        cursor.execute("BACKUP STAGE BLOCK_COMMIT")
        leaving = threads.submit(one.client.post, "/v1/auth/logout", headers=known.headers)
        try:
            wait_until(lambda: redis.command("GET", key, database=int(one.env["REDIS_DB"])) == "", "the end", within=5)
            assert not leaving.done()
        finally:
            cursor.execute("BACKUP STAGE END")
        assert leaving.result().status_code == 204


def test_redis_holds_no_password_and_no_token(one: Service, redis: Redis, known: Account) -> None:
    database = int(one.env["REDIS_DB"])
    keys: Any = redis.command("KEYS", f"*{known.id}*", database=database)
    held = json.dumps([[key, redis.command("GET", key, database=database)] for key in keys])
    assert known.username in held
    assert not any(secret in held for secret in ("scrypt", known.password, known.access_token, known.refresh_token))


def test_session_state_lives_a_minute_at_most_and_in_its_accounts_slot(
    one: Service, redis: Redis, known: Account
) -> None:
    database = int(one.env["REDIS_DB"])
    keys: Any = redis.command("KEYS", f"*{known.id}*", database=database)
    lives = [redis.command("TTL", key, database=database) for key in keys]
    assert len(keys) == 2
    assert all(f"{{{known.id}}}" in key for key in keys)
    assert all(isinstance(seconds, int) and 0 < seconds <= 60 for seconds in lives)


def test_a_count_of_attempts_goes_with_its_window(one: Service, redis: Redis) -> None:
    database = int(one.env["REDIS_DB"])
    body = {"login": "nobody-here", "password": "wrong one"}
    one.client.post("/v1/auth/login", json=body, headers={"X-Forwarded-For": "2001:db8::1"})
    key = "berth:{2001:db8::/64}:sign-ins"
    life = redis.command("TTL", key, database=database)
    assert redis.command("GET", key, database=database) == "5"  # the weight of the first failure at a name
    assert isinstance(life, int)
    assert 290 < life <= 300


def test_a_session_does_not_live_longer_in_redis_than_in_the_database(start_service: StartService) -> None:
    service = start_service("mysql+redis", REFRESH_TOKEN_TTL=2)
    account = service.sign_up()
    assert me(service, account).status_code == 200
    time.sleep(3)
    assert me(service, account).status_code == 401


def with_cache(scenario: Callable[[SessionCache], Awaitable[Result]], redis: Redis) -> Result:
    settings = load({"SYS_ENV": "test", **KEY, **redis.environment()})

    async def main() -> Result:
        async with asyncio.timeout(10), open_store(settings) as store:
            await store.ping()
            return await scenario(SessionCache(store))

    return asyncio.run(main())


async def fill(
    cache: SessionCache,
    content: bytes = b'{"as it was": 1}',
    session: str = "session",
    account: str = "account",
    age: int = 0,
) -> None:
    now = int(time.time() * 1000)
    await cache.put(account, session, content, read_at=now - age, expires_at=now + 100_000)


def test_what_was_put_is_found(redis: Redis) -> None:
    async def scenario(cache: SessionCache) -> bytes | None:
        await fill(cache)
        return await cache.get("account", "session")

    assert with_cache(scenario, redis) == b'{"as it was": 1}'


@pytest.mark.parametrize(("age", "trusted"), [(58_000, True), (61_000, False)])
def test_what_was_read_more_than_a_minute_ago_is_not_trusted_however_long_redis_keeps_it(
    redis: Redis, age: int, trusted: bool
) -> None:
    async def scenario(cache: SessionCache) -> bytes | None:
        await fill(cache, account=f"read {age} ms ago", age=age)
        return await cache.get(f"read {age} ms ago", "session")

    assert (with_cache(scenario, redis) is not None) == trusted


def test_what_redis_would_not_forget_is_not_trusted_and_forgotten_as_soon_as_it_will(redis: Redis) -> None:
    async def scenario(cache: SessionCache) -> list[bytes | None]:
        await fill(cache, account="kept", session="ended")
        await fill(cache, account="kept", session="alive")
        client: Any = cache.redis.client
        cache.redis.client = None  # as if it had been lost
        await cache.forget_session("kept", "ended")
        cache.redis.client = client
        at_once = [await cache.get("kept", session) for session in ("ended", "alive")]
        while cache.unburied:  # noqa: ASYNC110 - once a second
            await asyncio.sleep(0.05)
        return [*at_once, await client.get("berth:{kept}:session:ended")]

    assert with_cache(scenario, redis) == [None, b'{"as it was": 1}', b""]


@pytest.mark.parametrize("changed", ["account", "session"])
def test_a_reader_that_was_overtaken_by_a_change_does_not_put_back_what_it_read(redis: Redis, changed: str) -> None:
    async def scenario(cache: SessionCache) -> bytes | None:
        forgotten = {
            "account": lambda: cache.forget_account("account"),
            "session": lambda: cache.forget_session("account", "session"),
        }
        await forgotten[changed]()
        await fill(cache)
        return await cache.get("account", "session")

    assert with_cache(scenario, redis) is None


def test_a_session_that_ended_does_not_return_with_another_of_its_account(redis: Redis) -> None:
    async def scenario(cache: SessionCache) -> bytes | None:
        await fill(cache, session="ended")
        await cache.forget_session("account", "ended")
        await fill(cache, session="another")
        return await cache.get("account", "ended")

    assert with_cache(scenario, redis) is None


@pytest.fixture(scope="module")
def without_redis(mysql_and_redis: Callable[[], Environment]) -> Iterator[tuple[Service, Account]]:
    """It had a Redis when it started and a session in it, and has lost it since."""
    with Redis() as own, Service(TEST_SETTINGS | mysql_and_redis() | own.environment()) as service:
        account = service.sign_up()
        assert me(service, account).status_code == 200
        own.stop()
        yield service, account


def test_without_redis_a_session_from_before_goes_on(without_redis: tuple[Service, Account]) -> None:
    service, before = without_redis
    assert me(service, before).status_code == 200


def test_without_redis_a_session_is_refreshed_and_revoked(without_redis: tuple[Service, Account]) -> None:
    service, before = without_redis
    other = service.log_in(before.username, before.password)
    refreshed = service.client.post("/v1/auth/refresh", json={"refresh_token": other.refresh_token})
    [revoked] = [item["id"] for item in sessions(service, other) if item["current"]]
    answer = service.client.delete(f"/v1/auth/sessions/{revoked}", headers=before.headers)
    assert (refreshed.status_code, answer.status_code, me(service, other).status_code) == (200, 204, 401)


def test_without_redis_an_account_is_changed_and_deleted(without_redis: tuple[Service, Account]) -> None:
    service, _ = without_redis
    account = service.sign_up()
    change = {"current_password": account.password, "new_password": "another password"}
    answers = [
        change_me(service, account, username="No-redis"),
        service.client.put("/v1/auth/me/password", json=change, headers=account.headers),
        service.client.request("DELETE", "/v1/auth/me", json={"password": "another password"}, headers=account.headers),
        me(service, account),
    ]
    assert [answer.status_code for answer in answers] == [200, 204, 204, 401]


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    with Redis() as server:
        yield server


def test_a_redis_that_returns_is_used_within_5_seconds(start_service: StartService, own_redis: Redis) -> None:
    service = start_service(**settings(own_redis.environment()))
    account = service.sign_up()
    own_redis.restart()
    deadline = time.monotonic() + 5
    while not holds(own_redis, service, account) and time.monotonic() < deadline:
        assert me(service, account).status_code == 200
        time.sleep(0.05)
    assert holds(own_redis, service, account)


def settings(env: Environment) -> dict[str, Any]:
    return dict(env)


def holds(redis: Redis, service: Service, account: Account) -> bool:
    return redis.command("EXISTS", account_key(account), database=int(service.env["REDIS_DB"])) == 1


def test_a_lost_database_is_answered_for_by_redis_alone(start_service: StartService, redis: Redis) -> None:
    with MariaDB() as own:
        env = own.environment(own.create_database())
        assert run_app("migrate", env=TEST_SETTINGS | env).returncode == 0
        service = start_service(**settings(env | redis.environment()))
        account = service.sign_up()
        before = me(service, account)
        own.stop()
        after = me(service, account)
        unknown = change_me(service, account, username="Unknown")
        assert (after.status_code, after.json()) == (200, before.json())
        assert (unknown.status_code, "retry-after" in unknown.headers) == (503, True)


def test_reads_of_the_same_moment_go_out_together_and_each_gets_its_own_answer(redis: Redis) -> None:
    async def scenario(cache: SessionCache) -> tuple[list[bytes | None], int]:
        for number in range(0, 100, 2):
            await fill(cache, f"account of {number}".encode(), f"session-{number}", f"account-{number}")
        before = reads_processed(redis)
        found = [cache.get(f"account-{number}", f"session-{number}") for number in range(100)]
        return await asyncio.gather(*found), reads_processed(redis) - before

    found, reads = with_cache(scenario, redis)
    assert found == [None if number % 2 else f"account of {number}".encode() for number in range(100)]
    assert reads < 25


@pytest.mark.parametrize(("turns", "least", "most"), [(30, 1, 5), (300, 3, 20)])
def test_while_each_turn_of_the_event_loop_brings_reads_they_go_out_together(
    redis: Redis, turns: int, least: int, most: int
) -> None:
    """But never more than a hundred or so."""

    async def scenario(cache: SessionCache) -> tuple[list[bytes | None], int]:
        await fill(cache)
        before = commands(redis, "mget")
        found = []
        for _ in range(turns):
            found += [asyncio.create_task(cache.get("account", "session")) for _ in range(2)]
            await asyncio.sleep(0)
        return await asyncio.gather(*found), commands(redis, "mget") - before

    found, sent = with_cache(scenario, redis)
    assert found == [b'{"as it was": 1}'] * turns * 2
    assert least <= sent <= most


def commands(redis: Redis, name: str) -> int:
    """How many of them Redis has carried out."""
    calls = re.search(rf"cmdstat_{name}:calls=(\d+)", str(redis.command("INFO", "commandstats")))
    return int(calls[1]) if calls else 0


def reads_processed(redis: Redis) -> int:
    """How often Redis found a socket readable."""
    return int(str(redis.command("INFO", "stats")).split("total_reads_processed:")[1].split()[0])


def test_a_reader_that_is_cancelled_takes_no_other_along(redis: Redis) -> None:
    async def scenario(cache: SessionCache) -> list[bytes | None]:
        await fill(cache)
        first, *others = [asyncio.create_task(cache.get("account", "session")) for _ in range(5)]
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.gather(*others)

    assert with_cache(scenario, redis) == [b'{"as it was": 1}'] * 4
