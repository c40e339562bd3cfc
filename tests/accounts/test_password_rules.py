"""Which passwords there may be: none of the commonest, none made of names, 8 to 256 characters of what is hashed."""

import gzip
import itertools
import random
import unicodedata
from collections.abc import Iterator

import httpx
import pytest

from tests.support.service import ROOT, Account, Service

NUMBERS = itertools.count(1)
COMMON = "is one of the commonest passwords"
OWN = "is made of the account's or the service's name"
LENGTH = "expected 8 to 256 characters"


def register(service: Service, password: str, **chosen: str) -> httpx.Response:
    number = next(NUMBERS)
    body = {"username": f"keeper-{number}", "email": f"keeper-{number}@mail.example", "password": password}
    return service.client.post("/v1/auth/register", json=body | chosen)


def change(service: Service, account: Account, password: str) -> httpx.Response:
    body = {"current_password": account.password, "new_password": password}
    return service.client.put("/v1/auth/me/password", json=body, headers=account.headers)


def refused(answer: httpx.Response) -> str:
    assert answer.status_code == 422, answer.text
    [error] = answer.json()["errors"]
    assert error["field"] in {"password", "new_password"}
    return str(error["message"])


def samples() -> Iterator[str]:
    """Some that every list of the commonest has, and a few of all."""
    yield from ("password", "12345678", "iloveyou", "Password1", "PASSWORD", "qwertyuiop", "trustno1", "sunshine")
    yield from ("football", "1q2w3e4r", "baseball", "superman", "jennifer", "11111111", "passw0rd", "1qaz2wsx")
    yield from ("\uff50\uff41\uff53\uff53\uff57\uff4f\uff52\uff44", " password ", " " * 8, "\u200b" * 9)
    lines = gzip.decompress((ROOT / "handlers/accounts/common_passwords.txt.gz").read_bytes()).decode().split()
    yield from random.Random(1).sample(lines, 50)


def test_one_of_the_commonest_is_a_422_that_says_so(service: Service, account: Account) -> None:
    for password in samples():
        assert (password, refused(register(service, password))) == (password, COMMON)
        assert (password, refused(change(service, account, password))) == (password, COMMON)


def test_the_list_has_at_least_the_commonest_10000_that_are_long_enough() -> None:
    lines = gzip.decompress((ROOT / "handlers/accounts/common_passwords.txt.gz").read_bytes()).decode().split("\n")
    kept = [line for line in lines if line]
    assert len(kept) >= 10_000
    assert kept == sorted(set(kept))
    assert {line for line in kept if len(line) < 8 or line != unicodedata.normalize("NFKC", line.casefold())} == set()


OWN_NAMES = ["Hildegunde", "hildegunde1", "hildegunde2024!", "HILDEGUNDEhildegunde", "1-hildegunde-1", "ednugedlih"]
OWN_NAMES += ["lovelace", "ada.lovelace", "Lovelace.Ada99", "ada.lovelace@analytical.example", "analytical!"]
OWN_NAMES += [
    "Analytical.Example",
    "berth123",
    "BerthBerth",
    "Berth-Berth-2024",
    "hildegunde@berth",
    "H i l d e g u n d e",
]
OWN_NAMES += ["\uff48\uff49\uff4c\uff44\uff45\uff47\uff55\uff4e\uff44\uff45", "htreb---htreb", "lovelace" * 32]


@pytest.mark.parametrize("password", OWN_NAMES, ids=lambda text: ascii(text)[:30])
def test_one_made_of_what_anybody_knows_of_the_account_is_a_422(service: Service, password: str) -> None:
    own = {"username": "Hildegunde", "email": "Ada.Lovelace@analytical.example"}
    assert refused(register(service, password, **own)) == OWN


def test_the_domain_counts_in_punycode_and_in_unicode(service: Service) -> None:
    punycode = "xn--" + "b\u00fccherwurm".encode("punycode").decode()
    for password in ("b\u00fccherwurm1", punycode):
        assert refused(register(service, password, email=f"ada@{punycode}.example")) == OWN


def test_a_new_password_is_held_against_the_accounts_name_of_now(service: Service) -> None:
    account = service.sign_up()
    names = {"username": f"shipwright{next(NUMBERS)}", "email": f"bosun{next(NUMBERS)}@harbour.example"}
    body = names | {"current_password": account.password}
    assert service.client.patch("/v1/auth/me", json=body, headers=account.headers).status_code == 200
    for password in ("Shipwright2024", "bosunbosun", "harbour-harbour", "berthberth1"):
        assert refused(change(service, account, password)) == OWN
    assert change(service, account, account.username + "!").status_code == 204  # no longer its name


GOOD = [
    "hildegunde and ada",
    "my hildegundes",
    "correct horse",
    "berth of the ship",
    "\u674e\u5c0f\u9f99\u7684\u957f\u5bc6\u7801\u4e5f",
    "8 chars!",
]


@pytest.mark.parametrize("password", GOOD, ids=ascii)
def test_one_with_more_in_it_than_names_is_taken(service: Service, password: str) -> None:
    number = next(NUMBERS)
    answer = register(service, password, username=f"hildegunde-{number}", email=f"lovelace-{number}@mail.example")
    assert answer.status_code == 201, answer.text


DECOMPOSED = unicodedata.normalize("NFD", "\u00e9")


@pytest.mark.parametrize(
    ("password", "right"),
    [
        (DECOMPOSED * 7, False),  # 14 code points, 7 characters
        (DECOMPOSED * 4 + "1234", True),
        (DECOMPOSED * 256, True),
        (DECOMPOSED * 257, False),
        ("\ufdfa" * 14, True),  # 252
        ("\ufdfa" * 15, False),  # 270
        ("\ufb03\ufb03\ufb03", True),  # ffiffiffi
    ],
    ids=lambda value: ascii(value)[:20],
)
def test_length_is_counted_on_what_is_hashed(service: Service, account: Account, password: str, right: bool) -> None:
    answers = [register(service, password), change(service, account, password)]
    if right:
        assert [answer.status_code for answer in answers] == [201, 204]
        assert service.log_in(account.username, unicodedata.normalize("NFC", password)).id == account.id
    else:
        assert [refused(answer) for answer in answers] == [LENGTH] * 2
