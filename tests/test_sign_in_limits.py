"""Rate limits on failed sign-ins, per account and per client address."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from infra import passwords
from infra.limits import network
from tests.conftest import StartService
from tests.service import Account, Service

WRONG = "the wrong password"


def attempt(service: Service, login: str, password: str = WRONG, client: str = "192.0.2.1") -> httpx.Response:
    """From this address, as a proxy on loopback tells it."""
    headers = {"X-Forwarded-For": client}
    return service.client.post("/v1/auth/login", json={"login": login, "password": password}, headers=headers)


@pytest.fixture
def limited(start_service: StartService, backend: str) -> Service:
    return start_service(backend, LOGIN_RATE_LIMIT="3/60")


def test_after_so_many_failures_even_the_right_password_is_a_429_with_retry_after(limited: Service) -> None:
    account = limited.sign_up()
    assert [attempt(limited, account.username).status_code for _ in range(3)] == [401] * 3
    answer = attempt(limited, account.email, account.password, client="192.0.2.9")
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_one_address_is_limited_over_all_accounts(limited: Service) -> None:
    assert [attempt(limited, f"nobody-{n}").status_code for n in range(4)] == [401, 401, 401, 429]
    assert attempt(limited, "nobody-5", client="192.0.2.2").status_code == 401


def test_success_starts_the_accounts_count_afresh_but_not_the_addresss(limited: Service) -> None:
    account = limited.sign_up()
    for client in ("192.0.2.1", "192.0.2.1"):
        attempt(limited, account.username, client=client)
    assert attempt(limited, account.username, account.password).status_code == 200
    assert [attempt(limited, account.username, client="192.0.2.2").status_code for _ in range(3)] == [401] * 3
    assert attempt(limited, "someone-else").status_code == 401
    assert attempt(limited, "someone-else").status_code == 429


def test_many_guesses_at_the_same_instant_do_not_slip_through(limited: Service) -> None:
    account = limited.sign_up()
    with ThreadPoolExecutor(10) as threads:
        clients = [f"192.0.2.{n}" for n in range(10)]
        statuses = list(threads.map(lambda c: attempt(limited, account.username, client=c).status_code, clients))
    assert (statuses.count(401), statuses.count(429)) == (3, 7)


def test_a_wrong_current_password_counts_too(limited: Service) -> None:
    account = limited.sign_up()
    change = {"current_password": WRONG, "new_password": "something else"}
    statuses = [
        limited.client.put("/v1/auth/me/password", json=change, headers=account.headers).status_code for _ in range(4)
    ]
    assert statuses == [403, 403, 403, 429]


def second_instance(start_service: StartService, first: Service) -> Service:
    names = [n for n in first.env if n.startswith(("MYSQL", "REDIS")) or n in ("DATA_DIR", "LOGIN_RATE_LIMIT")]
    same: dict[str, Any] = {name: first.env[name] for name in names}
    return start_service(**same)


@pytest.mark.parametrize("backend", ["mysql+redis"], indirect=False)
def test_with_redis_instances_share_the_counts(start_service: StartService, backend: str) -> None:
    first = start_service(backend, LOGIN_RATE_LIMIT="3/60")
    second = second_instance(start_service, first)
    account = first.sign_up()
    statuses = [attempt(service, account.username).status_code for service in (first, second, first, second)]
    assert statuses == [401, 401, 401, 429]


def test_without_redis_each_instance_counts_its_own(start_service: StartService) -> None:
    first = start_service(LOGIN_RATE_LIMIT="1/60")
    second = second_instance(start_service, first)
    statuses = [attempt(service, "nobody-here").status_code for service in (first, second, first, second)]
    assert statuses == [401, 401, 429, 429]


def test_a_refusal_says_nothing_of_the_account(limited: Service) -> None:
    account: Account = limited.sign_up()
    known = [attempt(limited, account.username, client="192.0.2.1") for _ in range(4)][-1]
    unknown = [attempt(limited, "nobody-here", client="192.0.2.2") for _ in range(4)][-1]
    assert known.json() | {"trace_id": ""} == unknown.json() | {"trace_id": ""}


def test_an_unknown_account_costs_a_whole_hash_too(monkeypatch: pytest.MonkeyPatch) -> None:
    costs: list[tuple[int, int, int]] = []

    def hashed(password: str, salt: bytes, n: int, r: int, p: int) -> bytes:
        costs.append((n, r, p))
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
