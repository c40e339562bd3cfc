"""Password hashes: what they cost, what is kept of them, and which passwords there may be. Hashed as in production."""

import hashlib
import os
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import TEST_SETTINGS, Sql
from tests.support.service import Account, Service

TICK = 1 / os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def hashing() -> Iterator[Service]:
    with Service(TEST_SETTINGS) as service:
        yield service


@pytest.fixture(scope="module")
def member(hashing: Service) -> Account:
    """For tests that change nothing of it."""
    return hashing.sign_up()


def log_in(service: Service, login: str, password: str) -> httpx.Response:
    return service.client.post("/v1/auth/login", json={"login": login, "password": password})


def hash_of(service: Service, sql: Sql, account: Account) -> str:
    [row] = sql(service, f"SELECT password_hash FROM accounts WHERE id = '{account.id}'")
    return str(row["password_hash"])


def test_a_hash_is_a_phc_string_of_owasps_cost(hashing: Service, member: Account, sql: Sql) -> None:
    assert hash_of(hashing, sql, member).startswith("$scrypt$ln=15,r=8,p=3$")


def test_two_hashes_of_one_password_have_nothing_in_common(hashing: Service, sql: Sql) -> None:
    one, two = (hash_of(hashing, sql, hashing.sign_up(password="the same words")).split("$") for _ in range(2))
    assert one[:3] == two[:3]
    assert not set(one[3:]) & set(two[3:])


def test_a_hash_of_another_cost_logs_in_and_is_made_anew(hashing: Service, sql: Sql) -> None:
    account = hashing.sign_up()
    salt = bytes(16)
    key = hashlib.scrypt(account.password.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
    salt_text, key_text = (b64encode(part).decode().rstrip("=") for part in (salt, key))
    old = f"$scrypt$ln=14,r=8,p=1${salt_text}${key_text}"
    sql(hashing, f"UPDATE accounts SET password_hash = '{old}' WHERE id = '{account.id}'")
    assert log_in(hashing, account.username, "wrong one").status_code == 401
    assert hash_of(hashing, sql, account) == old
    assert log_in(hashing, account.username, account.password).status_code == 200
    assert hash_of(hashing, sql, account).startswith("$scrypt$ln=15,r=8,p=3$")
    assert log_in(hashing, account.username, account.password).status_code == 200


def test_a_hash_of_todays_cost_stays_as_it_is(hashing: Service, sql: Sql) -> None:
    account = hashing.sign_up()
    before = hash_of(hashing, sql, account)
    assert log_in(hashing, account.username, account.password).status_code == 200
    assert hash_of(hashing, sql, account) == before


def test_an_unknown_account_costs_as_much_as_a_wrong_password(hashing: Service, member: Account) -> None:
    """Counted in the process's CPU time: that of the clock changes with what else the machine does."""

    def cost(login: str) -> float:
        before = cpu_seconds(hashing)
        assert [log_in(hashing, login, "wrong one").status_code for _ in range(4)] == [401] * 4
        return cpu_seconds(hashing) - before

    known, unknown = cost(member.username), cost("nobody-here")
    assert known > 10 * TICK, "too little for this test to say anything"
    assert 0.7 < unknown / known < 1.4


def cpu_seconds(service: Service) -> float:
    fields = Path(f"/proc/{service.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK


@pytest.mark.parametrize("password", ["8 chars!", "\U0001f680" * 256], ids=["shortest", "longest"])
def test_a_password_of_8_to_256_characters_of_any_script_works(hashing: Service, password: str) -> None:
    assert hashing.sign_up(password=password).password == password


def test_a_password_typed_in_other_code_points_of_the_same_characters_is_the_same(hashing: Service) -> None:
    account = hashing.sign_up(password="caf\u00e9 cre\u0300me")
    assert hashing.log_in(account.username, "cafe\u0301 cr\u00e8me").id == account.id


@pytest.mark.parametrize("other", ["PASS", "pas", "passwords", " password", "password ", "Password"])
def test_a_password_that_is_nearly_right_is_wrong(hashing: Service, member: Account, other: str) -> None:
    nearly = {"PASS": member.password.upper(), "pas": member.password[:-1], "passwords": f"{member.password}s"}
    assert log_in(hashing, member.username, nearly.get(other, other)).status_code == 401
