"""Rate limits on failed sign-ins, per account and per client address."""

import asyncio
import hashlib
import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from handlers.accounts.sign_in_limits import SignInLimits
from infra.http.problems import Problem
from infra.redis.store import open_store
from settings import load
from tests.conftest import TEST_SETTINGS, Sql, StartService, backend_settings
from tests.faults.load import QuickService
from tests.support.servers import Redis
from tests.support.service import Account, Service

WRONG = "the wrong password"
SLOW = 4  # seconds: longer than what waits for it
ADDRESSES = (f"198.51.{high}.{low}" for high in itertools.count() for low in range(256))


def attempt(service: Service, login: str, password: str = WRONG, client: str = "192.0.2.1") -> httpx.Response:
    """From this address, as a proxy on loopback tells it."""
    headers = {"X-Forwarded-For": client}
    return service.client.post("/v1/auth/login", json={"login": login, "password": password}, headers=headers)


def fail(service: Service, login: str, times: int, client: str) -> list[int]:
    return [attempt(service, login, client=client).status_code for _ in range(times)]


@pytest.fixture(scope="module")
def limited(backend: str, request: pytest.FixtureRequest) -> Iterator[Service]:
    """Shared: each test fails at accounts and from addresses of its own."""
    with QuickService({**TEST_SETTINGS, "LOGIN_RATE_LIMIT": "2/60", **backend_settings(backend, request)}) as service:
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


# The window of attempts


def test_a_window_begins_with_its_first_attempt_and_is_not_moved_by_later_ones(
    start_service: StartService, backend: str, client: str
) -> None:
    service = start_service(backend, LOGIN_RATE_LIMIT="3/60")
    fail(service, "nobody-here", 1, client)
    time.sleep(1.6)
    assert fail(service, "nobody-here", 2, client) == [401, 401]
    refused = [attempt(service, "nobody-here", client=client) for _ in range(2)]
    assert [answer.status_code for answer in refused] == [429, 429]
    assert all(50 < int(answer.headers["retry-after"]) <= 59 for answer in refused)


@pytest.mark.parametrize("backend", ["mysql+redis"], indirect=True)
def test_in_redis_neither_an_attempt_nor_a_refusal_prolongs_the_window(
    limited: Service, redis: Redis, client: str
) -> None:
    database, key = int(limited.env["REDIS_DB"]), f"berth:{{{client}}}:attempts"
    fail(limited, f"nobody-at-{client}", 1, client)
    redis.command("EXPIRE", key, 20, database=database)
    assert fail(limited, f"nobody-at-{client}", 2, client) == [401, 429]
    assert redis.command("GET", key, database=database) == "2"
    assert 0 < int(str(redis.command("TTL", key, database=database))) <= 20


def test_the_attempts_are_free_again_when_the_window_ends(
    start_service: StartService, backend: str, client: str
) -> None:
    service = start_service(backend, LOGIN_RATE_LIMIT="1/1")
    assert fail(service, "nobody-here", 2, client) == [401, 429]
    time.sleep(1.1)
    assert fail(service, "nobody-here", 1, client) == [401]


def test_right_passwords_that_came_at_the_same_instant_do_not_limit_the_address_after(
    limited: Service, client: str
) -> None:
    accounts = [limited.sign_up() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(lambda a: attempt(limited, a.username, a.password, client).status_code, accounts))
    assert set(together) <= {200, 429}
    assert attempt(limited, accounts[0].username, accounts[0].password, client).status_code == 200


# Attempts that take long


def make_slow(service: Service, sql: Sql, account: Account) -> str:
    """Gives the account a hash that takes seconds to verify; returns the one that it had."""
    p = round(SLOW / min(seconds_of_a_hash() for _ in range(5)))
    [row] = sql(service, f"SELECT password_hash FROM accounts WHERE id = '{account.id}'")
    slow = f"$scrypt$ln=14,r=8,p={p}${'A' * 22}${'A' * 43}"
    sql(service, f"UPDATE accounts SET password_hash = '{slow}' WHERE id = '{account.id}'")
    return str(row["password_hash"])


def seconds_of_a_hash() -> float:
    started = time.monotonic()
    hashlib.scrypt(b"", salt=bytes(16), n=2**14, r=8, p=1, maxmem=2**26)
    return time.monotonic() - started


def test_an_attempt_that_ends_in_the_next_window_does_not_make_room_there(
    start_service: StartService, backend: str, sql: Sql, client: str
) -> None:
    service = start_service(backend, LOGIN_RATE_LIMIT="2/2", REQUEST_TIMEOUT="2.5")
    slow, quick = service.sign_up(), service.sign_up()
    make_slow(service, sql, slow)
    with ThreadPoolExecutor(1) as threads:
        begun = threads.submit(attempt, service, slow.username, slow.password, client)
        time.sleep(2.1)
        # the next window begins and is left as empty as it was
        assert attempt(service, quick.username, quick.password, client).status_code == 200
        assert begun.result().status_code == 504
    names = [f"nobody-{number}" for number in range(3)]  # each has attempts enough: it is the address's that count
    assert [attempt(service, name, client=client).status_code for name in names] == [401, 401, 429]


def test_an_attempt_that_could_not_be_checked_is_not_counted(
    start_service: StartService, backend: str, sql: Sql, client: str, elsewhere: str
) -> None:
    service = start_service(backend, LOGIN_RATE_LIMIT="1/60", REQUEST_TIMEOUT=1)
    account = service.sign_up()
    before = make_slow(service, sql, account)
    assert attempt(service, account.username, account.password, client).status_code == 504
    sql(service, f"UPDATE accounts SET password_hash = '{before}' WHERE id = '{account.id}'")
    assert fail(service, f"nobody-at-{client}", 2, client) == [401, 429]
    assert fail(service, account.username, 2, elsewhere) == [401, 429]


# Who counts as one client


@pytest.mark.parametrize(
    ("first", "second", "status"),
    [
        ("203.0.113.1", "203.0.113.2", 401),
        ("203.0.113.3", "::ffff:203.0.113.3", 429),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", 429),
        ("2001:db8:1:3::1", "2001:db8:1:4::1", 401),
        ("<script>", "unknown", 429),
        ("not-an-address", "203.0.113.4", 401),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_network(
    start_service: StartService, first: str, second: str, status: int
) -> None:
    service = start_service(LOGIN_RATE_LIMIT="1/60")
    assert fail(service, "one", 1, first) == [401]
    assert fail(service, "another", 1, second) == [status]


def test_without_redis_ten_thousand_counts_are_kept_and_no_more() -> None:
    """Else whoever has many addresses could fill the memory. The window that ends first gives way."""
    settings = load({"SYS_ENV": "test", "SECRET_KEY": "k" * 32, "LOGIN_RATE_LIMIT": "1/600"})
    clients = (f"10.{high}.{low}.1" for high in itertools.count() for low in range(256))

    async def refuse(limits: SignInLimits, account: str) -> int:
        try:
            async with limits.attempt(account, next(clients)):
                raise Problem(401, "wrong login or password")
        except Problem as problem:
            return problem.status

    async def main() -> tuple[int, int]:
        async with open_store(settings) as store:
            limits = SignInLimits(store, settings.login_rate_limit)
            await refuse(limits, "the first one")
            for number in range(4_999):  # each counts for an account and for an address
                await refuse(limits, f"account-{number}")
            kept = await refuse(limits, "the first one")
            await refuse(limits, "one more")
            return kept, await refuse(limits, "the first one")

    assert asyncio.run(main()) == (429, 401)
