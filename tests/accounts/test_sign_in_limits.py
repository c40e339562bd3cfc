"""Rate limits on failed sign-ins, per account and per client address."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import httpx
import pytest

from handlers.accounts import passwords
from handlers.accounts.sign_in_limits import SignInLimits, network
from infra.http.problems import Problem
from infra.redis.store import open_store
from settings import load
from tests.conftest import TEST_SETTINGS, StartService, backend_settings
from tests.support.servers import Redis
from tests.support.service import Service

WRONG = "the wrong password"
ADDRESSES = (f"198.51.{high}.{low}" for high in itertools.count() for low in range(256))

Result = TypeVar("Result")


def attempt(service: Service, login: str, password: str = WRONG, client: str = "192.0.2.1") -> httpx.Response:
    """From this address, as a proxy on loopback tells it."""
    headers = {"X-Forwarded-For": client}
    return service.client.post("/v1/auth/login", json={"login": login, "password": password}, headers=headers)


def fail(service: Service, login: str, times: int, client: str) -> list[int]:
    return [attempt(service, login, client=client).status_code for _ in range(times)]


@pytest.fixture(scope="module")
def limited(backend: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Shared: each test fails at accounts and from addresses of its own."""
    with Service({**TEST_SETTINGS, "LOGIN_RATE_LIMIT": "2/60", **backend_settings(backend, request)}) as service:
        yield service


@pytest.fixture
def client() -> str:
    return next(ADDRESSES)


@pytest.fixture
def elsewhere() -> str:
    return next(ADDRESSES)


def test_after_so_many_failures_even_the_right_password_is_a_429_with_retry_after(
    limited: Service, client: str, elsewhere: str
) -> None:
    account = limited.sign_up()
    assert fail(limited, account.username, 2, client) == [401] * 2
    answer = attempt(limited, account.email, account.password, elsewhere)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_one_address_is_limited_over_all_accounts(limited: Service, client: str, elsewhere: str) -> None:
    assert [attempt(limited, f"nobody-{n}", client=client).status_code for n in range(3)] == [401, 401, 429]
    assert attempt(limited, "nobody-5", client=elsewhere).status_code == 401


def test_a_limited_address_cannot_use_up_an_accounts_attempts(limited: Service, client: str, elsewhere: str) -> None:
    account = limited.sign_up()
    fail(limited, f"nobody-at-{client}", 2, client)
    assert fail(limited, account.username, 3, client) == [429] * 3
    assert attempt(limited, account.username, account.password, elsewhere).status_code == 200


def test_a_limited_account_does_not_use_up_its_owners_address(limited: Service, client: str, elsewhere: str) -> None:
    account = limited.sign_up()
    fail(limited, account.username, 2, elsewhere)
    assert fail(limited, account.username, 3, client) == [429] * 3
    assert attempt(limited, f"nobody-at-{client}", client=client).status_code == 401


def test_a_success_starts_the_accounts_count_afresh(limited: Service, client: str, elsewhere: str) -> None:
    account = limited.sign_up()
    fail(limited, account.username, 1, client)
    assert attempt(limited, account.username, account.password, client).status_code == 200
    assert fail(limited, account.username, 2, elsewhere) == [401] * 2


def test_a_success_does_not_start_the_addresss_count_afresh(limited: Service, client: str) -> None:
    account = limited.sign_up()
    fail(limited, f"nobody-at-{client}", 1, client)
    assert attempt(limited, account.username, account.password, client).status_code == 200
    assert fail(limited, f"another-at-{client}", 2, client) == [401, 429]


def test_many_guesses_at_the_same_instant_do_not_slip_through(limited: Service) -> None:
    account = limited.sign_up()
    clients = [next(ADDRESSES) for _ in range(10)]
    with ThreadPoolExecutor(10) as threads:
        statuses = list(threads.map(lambda c: attempt(limited, account.username, client=c).status_code, clients))
    assert (statuses.count(401), statuses.count(429)) == (2, 8)


def test_a_wrong_current_password_counts_too(limited: Service, client: str) -> None:
    account = limited.sign_up()
    change = {"current_password": WRONG, "new_password": "something else"}
    headers = account.headers | {"X-Forwarded-For": client}
    answers = [limited.client.put("/v1/auth/me/password", json=change, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [403, 403, 429]


def test_a_wrong_password_for_deleting_counts_with_those_of_logging_in(
    limited: Service, client: str, elsewhere: str
) -> None:
    account = limited.sign_up()
    fail(limited, account.username, 1, elsewhere)
    headers = account.headers | {"X-Forwarded-For": client}
    bodies = [{"password": password} for password in (WRONG, account.password)]
    answers = [limited.client.request("DELETE", "/v1/auth/me", json=body, headers=headers) for body in bodies]
    assert [answer.status_code for answer in answers] == [403, 429]


def test_a_refusal_says_nothing_of_the_account(limited: Service, client: str, elsewhere: str) -> None:
    account = limited.sign_up()
    known = [attempt(limited, account.username, client=client) for _ in range(3)][-1]
    unknown = [attempt(limited, "nobody-here", client=elsewhere) for _ in range(3)][-1]
    assert known.status_code == unknown.status_code == 429
    assert known.json() | {"trace_id": ""} == unknown.json() | {"trace_id": ""}


def test_an_address_that_the_client_made_up_is_not_believed(limited: Service, client: str) -> None:
    made_up = [f"203.0.113.{n}, {client}" for n in range(3)]
    statuses = [attempt(limited, "nobody-there", client=addresses).status_code for addresses in made_up]
    assert statuses == [401, 401, 429]


def test_a_proxy_that_is_not_trusted_is_the_client_itself(start_service: StartService) -> None:
    service = start_service(LOGIN_RATE_LIMIT="1/60", FORWARDED_ALLOW_IPS="192.0.2.77")
    statuses = [attempt(service, f"nobody-{n}", client=next(ADDRESSES)).status_code for n in range(2)]
    assert statuses == [401, 429]


def second_instance(start_service: StartService, first: Service) -> Service:
    names = [n for n in first.env if n.startswith(("MYSQL", "REDIS")) or n in ("DATA_DIR", "LOGIN_RATE_LIMIT")]
    same: dict[str, Any] = {name: first.env[name] for name in names}
    return start_service(**same)


def test_with_redis_instances_share_the_counts(start_service: StartService) -> None:
    first = start_service("mysql+redis", LOGIN_RATE_LIMIT="2/60")
    second = second_instance(start_service, first)
    account = first.sign_up()
    statuses = [attempt(service, account.username).status_code for service in (first, second, second)]
    assert statuses == [401, 401, 429]


def test_without_redis_each_instance_counts_its_own(start_service: StartService) -> None:
    first = start_service(LOGIN_RATE_LIMIT="1/60")
    second = second_instance(start_service, first)
    statuses = [attempt(service, "nobody-here").status_code for service in (first, second, first, second)]
    assert statuses == [401, 401, 429, 429]


def with_limits(
    scenario: Callable[[SignInLimits], Awaitable[Result]], redis: dict[str, str], limit: str = "3/60"
) -> Result:
    settings = load({"SYS_ENV": "test", "SECRET_KEY": "k" * 32, "LOGIN_RATE_LIMIT": limit, **redis})

    async def main() -> Result:
        async with asyncio.timeout(10), open_store(settings) as store:
            while store.enabled and store.client is None:  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
            return await scenario(SignInLimits(store, settings.login_rate_limit))

    return asyncio.run(main())


@pytest.fixture(params=["shared", "local"])
def counters(request: pytest.FixtureRequest) -> dict[str, str]:
    """Where the counts are kept: in Redis, or in the instance."""
    if request.param == "local":
        return {}
    redis: Redis = request.getfixturevalue("redis")
    return redis.environment()


async def sign_in(limits: SignInLimits, account: str, *, right: bool) -> int:
    try:
        async with limits.attempt(account, "192.0.2.1"):
            await asyncio.sleep(0.05)
            if not right:
                raise Problem(401, "wrong login or password")
    except Problem as problem:
        return problem.status
    return 200


def test_right_passwords_that_came_at_the_same_instant_do_not_limit_the_address_after(counters: dict[str, str]) -> None:
    async def scenario(limits: SignInLimits) -> tuple[list[int], int]:
        together = await asyncio.gather(*(sign_in(limits, f"account-{n}", right=True) for n in range(8)))
        return together, await sign_in(limits, "one-more", right=True)

    together, after = with_limits(scenario, counters)
    assert set(together) <= {200, 429}
    assert after == 200


def test_an_attempt_that_ends_in_the_next_window_does_not_make_room_there(counters: dict[str, str]) -> None:
    async def scenario(limits: SignInLimits) -> list[int]:
        async with limits.attempt("account", "192.0.2.1"):
            await forget_counts(limits)
        return [await sign_in(limits, f"account-{n}", right=False) for n in range(4)]

    assert with_limits(scenario, counters) == [401, 401, 401, 429]


async def forget_counts(limits: SignInLimits) -> None:
    """As at the end of a window; then one attempt that succeeds has begun the next and left."""
    limits.local.clear()
    await limits.redis.run(lambda client: client.flushdb())
    await sign_in(limits, "another", right=True)


def test_the_attempts_are_free_again_when_the_window_ends(counters: dict[str, str]) -> None:
    async def scenario(limits: SignInLimits) -> list[int]:
        before = [await sign_in(limits, "account", right=False) for _ in range(2)]
        await asyncio.sleep(1.1)
        return [*before, await sign_in(limits, "account", right=False)]

    assert with_limits(scenario, counters, "1/1") == [401, 429, 401]


def test_an_attempt_that_could_not_be_checked_is_not_counted(counters: dict[str, str]) -> None:
    async def scenario(limits: SignInLimits) -> list[int]:
        for _ in range(4):
            with pytest.raises(ZeroDivisionError):
                async with limits.attempt("account", "192.0.2.1"):
                    raise ZeroDivisionError
        return [await sign_in(limits, "account", right=False) for _ in range(4)]

    assert with_limits(scenario, counters) == [401, 401, 401, 429]


def test_an_unknown_account_costs_a_whole_hash_too(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[passwords.Cost] = []

    def hashed(password: str, salt: bytes, cost: passwords.Cost) -> bytes:
        costs.append(cost)
        return bytes(32)

    monkeypatch.setattr(passwords, "_scrypt", hashed)
    hasher = passwords.Passwords()
    assert not asyncio.run(hasher.verify("anything", None))
    hasher.close()
    assert costs == [(2**15, 8, 3)]


@pytest.mark.parametrize(
    ("client", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("<script>", "unknown"),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(client: str, counted: str) -> None:
    assert network(client) == counted
