"""Rate limits on failed sign-ins, per account and per client address."""

import asyncio
import hashlib
import itertools
import re
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from infra.redis.counters import MOST, Counters, Window
from infra.redis.store import open_store
from settings import load
from tests.conftest import TEST_SETTINGS, Sql, StartService, backend_settings
from tests.faults.load import QuickService
from tests.support.servers import Redis
from tests.support.service import ROOT, Account, Service

WRONG = "the wrong password"
SLOW = 4  # seconds: longer than what waits for it
STRANGERS = 5  # times what one client may fail at one account: all that it doesn't know together
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


def log_in(service: Service, account: Account, client: str) -> int:
    return attempt(service, account.username, account.password, client).status_code


def test_after_so_many_failures_of_one_client_even_its_right_password_is_a_429_with_retry_after(
    limited: Service, client: str
) -> None:
    account = limited.sign_up()
    assert fail(limited, account.username, 2, client) == [401] * 2
    answer = attempt(limited, account.username, account.password, client)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60


@pytest.mark.parametrize("said", ["{upper}", "\uff53{rest}"], ids=ascii)
def test_other_ways_to_write_a_name_have_no_count_of_their_own(limited: Service, client: str, said: str) -> None:
    """Whether there is an account or not: else 429 and 401 would tell."""
    for name in (limited.sign_up().username, f"stranger-{client}"):
        other = said.format(name, upper=name.upper(), rest=name[1:])
        assert fail(limited, name, 2, client) == [401] * 2
        assert fail(limited, other, 1, client) == [429]


def test_a_refusal_says_nothing_of_the_account(limited: Service, client: str, elsewhere: str) -> None:
    account = limited.sign_up()
    known = [attempt(limited, account.username, client=client) for _ in range(3)][-1]
    unknown = [attempt(limited, "nobody-here", client=elsewhere) for _ in range(3)][-1]
    assert known.status_code == unknown.status_code == 429
    assert known.json() | {"trace_id": ""} == unknown.json() | {"trace_id": ""}


def test_the_names_of_one_account_have_one_count_and_no_answer_tells_that_they_are_of_one(
    limited: Service, client: str
) -> None:
    account = limited.sign_up()
    names = [("nobody-of-it", f"nobody@{client}.example.com"), (account.username, account.email)]
    for (username, email), where in zip(names, (client, next(ADDRESSES)), strict=True):
        assert fail(limited, username, 2, where) == [401] * 2
        assert fail(limited, email, 3, where) == [401, 401, 429]
    account = limited.sign_up()
    elsewhere = next(ADDRESSES)
    fail(limited, account.username, 2, elsewhere)
    assert attempt(limited, account.email, account.password, elsewhere).status_code == 401


# Nobody is kept out by what others do


def test_a_client_that_the_account_has_logged_in_from_is_let_in_whatever_others_do(limited: Service) -> None:
    account, home = limited.sign_up(), next(ADDRESSES)
    assert log_in(limited, account, home) == 200
    assert limited.client.post("/v1/auth/logout", headers=account.headers).status_code == 204
    everywhere = [fail(limited, account.username, 2, next(ADDRESSES)) for _ in range(STRANGERS + 1)]
    assert everywhere == [[401] * 2] * STRANGERS + [[429] * 2]
    at_home = [fail(limited, f"nobody-{number}", 1, home) for number in range(6)]
    assert at_home == [[401]] * 4 + [[429]] * 2
    assert log_in(limited, account, home) == 200
    assert fail(limited, account.username, 3, home) == [401, 401, 429]


def test_a_client_that_it_has_not_is_let_in_whatever_a_few_others_do(limited: Service) -> None:
    account = limited.sign_up()
    assert [fail(limited, account.username, 3, next(ADDRESSES)) for _ in range(4)] == [[401, 401, 429]] * 4
    assert log_in(limited, account, next(ADDRESSES)) == 200


def test_repeated_failures_at_one_account_leave_the_address_open_for_others(limited: Service, client: str) -> None:
    accounts = [limited.sign_up() for _ in range(3)]
    assert fail(limited, accounts[0].username, 6, client) == [401, 401, 429, 429, 429, 429]
    assert [log_in(limited, account, client) for account in accounts[1:]] == [200, 200]


def test_a_password_change_makes_strangers_of_all_other_clients(limited: Service, client: str, elsewhere: str) -> None:
    account = limited.sign_up()
    assert [log_in(limited, account, where) for where in (client, elsewhere)] == [200, 200]
    change = {"current_password": account.password, "new_password": "something else"}
    headers = account.headers | {"X-Forwarded-For": client}
    assert limited.client.put("/v1/auth/me/password", json=change, headers=headers).status_code == 204
    for where, then in ((client, 200), (elsewhere, 429)):
        fail(limited, f"nobody-at-{where}", 1, where)
        [fail(limited, f"nobody-{number}-at-{where}", 1, where) for number in range(3)]
        assert attempt(limited, account.username, "something else", where).status_code == then


def test_a_client_is_known_for_ninety_days_and_no_longer(limited: Service, sql: Sql, client: str) -> None:
    account = limited.sign_up()
    assert log_in(limited, account, client) == 200
    [row] = sql(
        limited, f"SELECT expires_at FROM known_clients WHERE account_id = '{account.id}' AND network = '{client}'"
    )
    assert 89.9 < (row["expires_at"] / 1000 - time.time()) / 86400 < 90.1
    mine = f"account_id = '{account.id}' AND network = '{client}'"
    for left, then in ((50_000, 200), (-1, 429)):
        [fail(limited, f"nobody-{number}-at-{client}", 1, client) for number in range(4)]
        sql(limited, f"UPDATE known_clients SET expires_at = {int(time.time() * 1000) + left} WHERE {mine}")
        assert log_in(limited, account, client) == then
        [row] = sql(limited, f"SELECT expires_at FROM known_clients WHERE {mine}")
        assert (row["expires_at"] / 1000 - time.time() > 80 * 86400) == (then == 200)


def test_of_one_account_a_hundred_clients_are_kept_the_newest(limited: Service, sql: Sql, client: str) -> None:
    account = limited.sign_up()
    rows = ", ".join(f"('{account.id}', 'network-{number}', {10**15 + number})" for number in range(100))
    sql(limited, f"INSERT INTO known_clients (account_id, network, expires_at) VALUES {rows}")
    assert log_in(limited, account, client) == 200
    kept = {
        row["network"] for row in sql(limited, f"SELECT network FROM known_clients WHERE account_id = '{account.id}'")
    }
    assert len(kept) == 100
    assert client in kept or "network-99" in kept


# What counts


def test_one_address_is_limited_over_all_accounts_and_another_one_weighs_more(limited: Service, client: str) -> None:
    """Of a weight of 20 the first failure at a name takes 5, each after it 1."""
    names = [f"nobody-{number}" for number in range(6)]
    assert [attempt(limited, name, client=client).status_code for name in names] == [401] * 4 + [429] * 2
    elsewhere = next(ADDRESSES)
    twice = [fail(limited, name, 2, elsewhere) for name in names]
    assert twice == [[401, 401]] * 3 + [[401, 429], [429, 429], [429, 429]]
    assert attempt(limited, "nobody-5", client=next(ADDRESSES)).status_code == 401


def test_a_limited_address_cannot_use_up_an_accounts_attempts(limited: Service, client: str, elsewhere: str) -> None:
    account = limited.sign_up()
    for number in range(4):
        fail(limited, f"nobody-{number}-at-{client}", 1, client)
    assert fail(limited, account.username, 30, client) == [429] * 30
    assert log_in(limited, account, elsewhere) == 200


def test_a_success_starts_the_clients_count_at_this_account_afresh(limited: Service, client: str) -> None:
    account = limited.sign_up()
    for _ in range(3):
        assert fail(limited, account.username, 1, client) == [401]
        assert log_in(limited, account, client) == 200


def test_a_success_does_not_start_the_addresss_count_afresh(limited: Service, client: str) -> None:
    account = limited.sign_up()
    for number in range(4):
        assert fail(limited, f"nobody-{number}-at-{client}", 1, client) == [401]
        log_in(limited, account, client)
    assert fail(limited, f"another-at-{client}", 1, client) == [429]


def test_many_guesses_at_the_same_instant_do_not_slip_through(limited: Service, client: str) -> None:
    account = limited.sign_up()
    with ThreadPoolExecutor(10) as threads:
        statuses = list(threads.map(lambda _: attempt(limited, account.username, client=client).status_code, range(10)))
    assert (statuses.count(401), statuses.count(429)) == (2, 8)


def test_many_guesses_of_many_clients_at_the_same_instant_do_not_slip_through(limited: Service) -> None:
    account = limited.sign_up()
    clients = [next(ADDRESSES) for _ in range(20)]
    with ThreadPoolExecutor(20) as threads:
        statuses = list(threads.map(lambda c: attempt(limited, account.username, client=c).status_code, clients))
    assert (statuses.count(401), statuses.count(429)) == (10, 10)


def test_right_passwords_at_the_same_instant_wait_for_one_another_and_are_all_right(
    limited: Service, client: str
) -> None:
    """Of one account from one address, and of many: what is in flight is no failure."""
    one, many = limited.sign_up(), [limited.sign_up() for _ in range(12)]
    with ThreadPoolExecutor(32) as threads:
        assert set(threads.map(lambda _: log_in(limited, one, client), range(32))) == {200}
        assert set(threads.map(lambda account: log_in(limited, account, next(ADDRESSES)), many)) == {200}
        assert set(threads.map(lambda account: log_in(limited, account, client), many)) == {200}


# What a bearer confirms


def change_password(service: Service, account: Account, password: str, client: str) -> int:
    change = {"current_password": password, "new_password": account.password}
    headers = account.headers | {"X-Forwarded-For": client}
    return service.client.put("/v1/auth/me/password", json=change, headers=headers).status_code


def delete(service: Service, account: Account, password: str, client: str) -> int:
    headers = account.headers | {"X-Forwarded-For": client}
    return service.client.request("DELETE", "/v1/auth/me", json={"password": password}, headers=headers).status_code


@pytest.mark.parametrize("confirm", [change_password, delete])
def test_what_a_bearer_confirms_is_not_refused_for_failed_log_ins(limited: Service, client: str, confirm: Any) -> None:
    account = limited.sign_up()
    assert fail(limited, account.username, 3, client) == [401, 401, 429]
    for number in range(4):
        fail(limited, f"nobody-{number}-at-{client}", 1, client)
    assert confirm(limited, account, account.password, client) == 204


def test_a_session_that_confirms_wrongly_is_limited_and_no_other_and_no_log_in(limited: Service, client: str) -> None:
    account = limited.sign_up()
    other = limited.log_in(account.username, account.password)
    clients = [next(ADDRESSES), client, client]
    wrong = [change_password(limited, account, WRONG, one) for one in clients]
    assert [*wrong, delete(limited, account, account.password, client)] == [403, 403, 429, 429]
    assert change_password(limited, other, account.password, client) == 204
    assert log_in(limited, account, client) == 200


def test_an_address_that_the_client_made_up_is_not_believed(limited: Service, client: str) -> None:
    made_up = [f"203.0.113.{n}, {client}" for n in range(3)]
    statuses = [attempt(limited, "nobody-there", client=addresses).status_code for addresses in made_up]
    assert statuses == [401, 401, 429]


def test_a_proxy_that_is_not_trusted_is_the_client_itself(start_service: StartService) -> None:
    service = start_service(LOGIN_RATE_LIMIT="1/60", FORWARDED_ALLOW_IPS="192.0.2.77")
    statuses = [attempt(service, "nobody-here", client=next(ADDRESSES)).status_code for _ in range(2)]
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
    name = f"nobody-at-{client}"
    database, key = int(limited.env["REDIS_DB"]), key_of(client, name)
    fail(limited, name, 1, client)
    redis.command("EXPIRE", key, 20, database=database)
    assert fail(limited, name, 2, client) == [401, 429]
    assert redis.command("GET", key, database=database) == "2"
    assert 0 < int(str(redis.command("TTL", key, database=database))) <= 20


def key_of(client: str, name: str) -> str:
    return f"berth:{{{client}}}:sign-ins:{hashlib.sha256(name.encode()).hexdigest()}"


def test_the_attempts_are_free_again_when_the_window_ends(
    start_service: StartService, backend: str, client: str
) -> None:
    service = start_service(backend, LOGIN_RATE_LIMIT="1/1")
    assert fail(service, "nobody-here", 2, client) == [401, 429]
    time.sleep(1.1)
    assert fail(service, "nobody-here", 1, client) == [401]


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
    names = [f"nobody-{number}" for number in range(5)]  # each has attempts enough: it is the address's that count
    assert [attempt(service, name, client=client).status_code for name in names] == [401] * 4 + [429]


def test_an_attempt_that_could_not_be_checked_is_not_counted(
    start_service: StartService, backend: str, sql: Sql, client: str, elsewhere: str
) -> None:
    service = start_service(backend, LOGIN_RATE_LIMIT="1/60", REQUEST_TIMEOUT=1)
    account = service.sign_up()
    before = make_slow(service, sql, account)
    assert attempt(service, account.username, account.password, client).status_code == 504
    sql(service, f"UPDATE accounts SET password_hash = '{before}' WHERE id = '{account.id}'")
    assert [fail(service, f"nobody-{n}", 1, client) for n in range(3)] == [[401], [401], [429]]
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
    assert fail(service, "somebody", 1, first) == [401]
    assert fail(service, "somebody", 1, second) == [status]


def test_an_ipv6_site_has_eight_times_what_one_of_its_networks_has(start_service: StartService) -> None:
    """Of 10 an address has two names, of 80 the /48 sixteen; all its /64 together would have any number."""
    service = start_service(LOGIN_RATE_LIMIT="1/60")
    statuses = [fail(service, f"nobody-{n}", 1, f"2001:db8:7:{n:x}::1") for n in range(17)]
    assert statuses == [[401]] * 16 + [[429]]
    assert fail(service, "nobody-else", 1, "2001:db8:8::1") == [401]


# The guessing rate that docs/security.md promises


def test_the_guessing_rate_is_the_one_that_is_written_down(start_service: StartService) -> None:
    """With the default, 10/300, in one window: by one client at one account, by all strangers, by one address."""
    service = start_service(LOGIN_RATE_LIMIT="10/300")

    def guesses(attempts: Iterable[tuple[str, str]]) -> int:
        statuses = [attempt(service, name, client=client).status_code for name, client in attempts]
        assert statuses[-1] == 429
        return statuses.count(401)

    account = service.sign_up()
    found = {
        "one client at one account": guesses([(account.username, "192.0.2.9")] * 12),
        "all strangers at one name": guesses([(account.email, next(ADDRESSES)) for _ in range(55)]),
        "one address at different accounts": guesses([(f"nobody-{n}", "192.0.2.7") for n in range(25)]),
        "one address at the same accounts": guesses([(f"nobody-{n // 10}", "192.0.2.8") for n in range(130)]),
    }
    page = (ROOT / "docs/security.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| .+? \| (\d+) \| ([\d,]+) \|$", page, re.MULTILINE)
    promised = {what: int(number) for what, number, _ in rows}
    assert found == {what: promised[what] for what in found}
    assert [int(day.replace(",", "")) for _, _, day in rows] == [int(number) * 288 for _, number, _ in rows]


# Counts that are kept


def test_without_redis_ten_thousand_counts_are_kept_and_no_more() -> None:
    """Else whoever has many addresses could fill the memory. The one that began first gives way."""
    settings = load({"SYS_ENV": "test", "SECRET_KEY": "k" * 32})

    async def main() -> tuple[int, int, int]:
        async with open_store(settings) as store:
            counters = Counters(store)
            for number in range(MOST):
                await counters.take(Window(f"client-{number}", 1, 600))
            kept = await counters.take(Window("client-0", 1, 600))
            await counters.take(Window("one more", 1, 600))
            return kept, await counters.take(Window("client-0", 1, 600)), len(counters.known)

    kept, gone, number = asyncio.run(main())
    assert (kept > 0, gone, number) == (True, 0, MOST)


def test_what_is_refused_under_ever_new_names_pushes_out_no_count() -> None:
    settings = load({"SYS_ENV": "test", "SECRET_KEY": "k" * 32})

    async def main() -> tuple[bool, int]:
        async with open_store(settings) as store:
            counters = Counters(store)
            full = Window("full", 1, 600)
            await counters.take(full)
            for number in range(MOST + 1):
                assert not (await counters.begin([Window(f"name-{number}", 10, 600), full])).weights
            return counters.is_full(full), len(counters.known)

    assert asyncio.run(main()) == (True, 1)
