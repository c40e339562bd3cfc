"""Names and addresses: what looks the same is the same account, what can't be seen is refused, on either database."""

import itertools
import unicodedata

import httpx
import pytest

from tests.conftest import StartService
from tests.support.service import Account, Service

PASSWORD = "correct horse"
NUMBERS = itertools.count(1)

UNSEEN = [
    *("\u200b", "\u200c", "\u200d", "\u2060", "\ufeff", "\u00ad", "\u034f"),  # of no width
    *("\u202a", "\u202e", "\u2066", "\u2069", "\u200e", "\u200f", "\u061c"),  # bidirectional
    *("\ufe00", "\ufe0f", "\U000e0100", "\u180b", "\u180e"),  # variation
    *("\U000e0001", "\U000e0041", "\U000e007f"),  # tags
    *("\x01", "\t", "\n", "\x1b", "\x7f", "\x85", "\u2028", "\u2029"),  # controls
    *("\u0378", "\u2065", "\ufff0", "\U000e0fff", "\U0003fffe", "\uffff"),  # unassigned
    *("\ue000", "\uf8ff", "\U000f0000", "\U0010fffd"),  # private use
    *("\u3164", "\uffa0", "\u115f", "\u1160", "\u17b4", "\u2800", "\U0001d159"),  # letters and signs that are blanks
    "\ufffc",  # in place of an object
    *("\u1680", "\u00a0", "\u3000", "\u2003", " "),  # blanks within
]


def register(service: Service, **chosen: str) -> httpx.Response:
    number = next(NUMBERS)
    body = {"username": f"somebody-{number}", "email": f"somebody-{number}@example.com", "password": PASSWORD}
    return service.client.post("/v1/auth/register", json=body | chosen)


def refused(answer: httpx.Response) -> dict[str, str]:
    assert answer.status_code == 422, answer.text
    return {error["field"]: error["message"] for error in answer.json()["errors"]}


def change(service: Service, account: Account, **changes: str) -> httpx.Response:
    body = {"current_password": account.password} | changes
    return service.client.patch("/v1/auth/me", json=body, headers=account.headers)


def status_of_login(service: Service, login: str) -> int:
    return service.client.post("/v1/auth/login", json={"login": login, "password": PASSWORD}).status_code


@pytest.mark.parametrize("char", UNSEEN, ids=ascii)
def test_a_character_that_cannot_be_seen_is_a_422(service: Service, account: Account, char: str) -> None:
    for email in (f"a{char}da@example.com", f"ada@exa{char}mple.com"):
        assert list(refused(register(service, email=email))) == ["email"]
        changed = change(service, account, email=email)
        assert list(refused(changed)) == ["email"]
    assert list(refused(register(service, username=f"a{char}da"))) == ["username"]


def test_a_lone_surrogate_is_refused(service: Service) -> None:
    body = b'{"username": "surrogate", "email": "a\\udc00da@example.com", "password": "correct horse"}'
    answer = service.client.post("/v1/auth/register", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)


SAME = [
    ("jos\u00e9@caf\u00e9.example", "jose\u0301@cafe\u0301.example"),  # composed by another keyboard
    ("\uc120\uc6d0@example.com", unicodedata.normalize("NFD", "\uc120\uc6d0@example.com")),
    ("Angstrom-\u212b@example.com", "angstrom-\u00e5@EXAMPLE.com"),
    (
        "wide@example.com",
        "\uff57\uff49\uff44\uff45\uff20\uff45\uff58\uff41\uff4d\uff50\uff4c\uff45\uff0e\uff43\uff4f\uff4d",
    ),
    ("stops@mail.example.com", "stops@mail\u3002example\uff61com"),
    ("blank@example.com", " blank@example.com"),
    ("blank-after@example.com", "blank-after@example.com "),
    ("blanks@example.com", "\u3000\u00a0 blanks@example.com \u2003"),
    ("idn@b\u00fccher.example", "idn@xn--bcher-kva.example"),
    ("idn-capital@B\u00dcCHER.example", "idn-capital@XN--BCHER-KVA.Example"),
    ("idn-apart@bu\u0308cher.example", "idn-apart@xn--bcher-kva.example"),
    ("idn-han@\u4f8b\u5b50.\u6d4b\u8bd5", "idn-han@xn--fsqu00a.xn--0zwm56d"),
    ("idn-2008@stra\u00dfe.example", "idn-2008@xn--strae-oqa.example"),
    ("sigma-\u03c3\u03c2@example.com", "SIGMA-\u03a3\u03a3@example.com"),
]


@pytest.mark.parametrize(("one", "other"), SAME, ids=ascii)
def test_what_looks_the_same_is_the_same_address(service: Service, account: Account, one: str, other: str) -> None:
    assert register(service, email=one).status_code == 201
    again = register(service, email=other)
    changed = change(service, account, email=other)
    for answer in (again, changed):
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (409, "email")
    assert [status_of_login(service, login) for login in (one, other, f" {other} ")] == [200] * 3


def test_an_address_is_kept_without_blanks_in_one_form(service: Service) -> None:
    account = register(service, username=" Rene ", email=" Rene\u0301@Example.com ").json()
    assert (account["username"], account["email"]) == ("Rene", "Ren\u00e9@Example.com")


OTHERS = [
    ("resume@example.com", "r\u00e9sum\u00e9@example.com"),
    ("naive@example.com", "na\u00efve@example.com"),
    ("ada@uber.example", "ada@\u00fcber.example"),
    ("o@example.com", "\u00f8@example.com"),
    ("kamel@example.com", "\u0138amel@example.com"),
    ("zero@example.com", "zer\u043e@example.com"),
    ("taro@example.com", "t\u0251ro@example.com"),
    ("\u304b@example.com", "\u304c@example.com"),  # MySQL's accent-insensitive collations say that these are one
    ("\u306f@example.com", "\u3071@example.com"),
    ("i@example.com", "\u0131@example.com"),
]


@pytest.mark.parametrize(("one", "other"), OTHERS, ids=ascii)
def test_what_is_another_address_stays_another_on_either_database(service: Service, one: str, other: str) -> None:
    assert register(service, email=f"other-{one}").status_code == 201
    assert status_of_login(service, f"other-{other}") == 401
    assert register(service, email=f"other-{other}").status_code == 201


@pytest.mark.parametrize(
    "domain",
    [
        "xn--zzzzzzzzzzzzzz.example",  # no punycode
        "xn--" + "\u00fc".encode("punycode").decode().rjust(70, "a") + ".example",  # longer than a label may be
        "xn--abc-.example",  # of plain letters
        "xn--99999999999.example",
        "xn--exa\u00e9.example",
        "a.xn--a-0hb.example.xn--ab-xyz-",
        "xn--" + "a\u200db".encode("punycode").decode() + ".example",
        "xn--" + "a\uff0eb".encode("punycode").decode() + ".example",
        "xn--" + "a\uff20b".encode("punycode").decode() + ".example",
        "xn--" + "\u3000b".encode("punycode").decode() + ".example",
        "xn--" + "\uff58n--bcher-kva".encode("punycode").decode() + ".example",
    ],
    ids=ascii,
)
def test_punycode_of_what_is_no_domain_is_a_422(service: Service, domain: str) -> None:
    assert list(refused(register(service, email=f"ada@{domain}"))) == ["email"]
    assert status_of_login(service, f"ada@{domain}") == 401


@pytest.mark.parametrize("blank", [" ", "   ", "\u00a0", "\u3000"], ids=ascii)
def test_a_blank_around_a_name_is_dropped_everywhere(service: Service, blank: str) -> None:
    name = f"dropped-{ascii(blank).encode().hex()}"
    account = register(service, username=f"{blank}{name}{blank}", email=f"{blank}{name}@example.com{blank}").json()
    assert (account["username"], account["email"]) == (name, f"{name}@example.com")
    for login in (name, f"{name}@example.com"):
        assert [status_of_login(service, text) for text in (login, f"{login}{blank}", f"{blank}{login}")] == [200] * 3
    tokens = service.log_in(name, PASSWORD)
    changed = change(service, tokens, username=f"{name}x{blank}")
    assert changed.json()["username"] == f"{name}x"


def test_a_blank_after_an_address_does_not_tell_whether_it_exists(start_service: StartService, backend: str) -> None:
    service = start_service(backend, LOGIN_RATE_LIMIT="6/60")
    tried: list[list[int]] = []
    for email in (service.sign_up().email, "nobody@example.com"):
        bodies = [{"login": email + " " * (n % 3), "password": "wrong one"} for n in range(8)]
        headers = {"X-Forwarded-For": f"203.0.113.{len(tried)}"}  # a client of its own
        answers = [service.client.post("/v1/auth/login", json=body, headers=headers) for body in bodies]
        tried.append([answer.status_code for answer in answers])
    assert tried == [[401] * 6 + [429] * 2] * 2


def test_a_username_typed_in_wide_letters_is_the_plain_one(service: Service) -> None:
    account = register(service, username="\uff37\uff49\uff44\uff45-name")
    assert (account.status_code, account.json()["username"]) == (201, "Wide-name")
    assert register(service, username="wide-NAME").status_code == 409
    assert status_of_login(service, "wide-name") == 200


LONG = "\u00e9" * 64 + "@" + ".".join(["\u00e8" * 44] * 4) + ".example"


def test_lengths_are_those_of_what_is_kept_however_it_was_typed(service: Service) -> None:
    assert len(LONG) < 254 < len(unicodedata.normalize("NFD", LONG))
    assert register(service, email=unicodedata.normalize("NFD", LONG)).status_code == 201
    assert register(service, email=LONG).status_code == 409
    assert status_of_login(service, unicodedata.normalize("NFD", LONG)) == 200
    assert list(refused(register(service, email="\ufb03" * 22 + "@example.com"))) == ["email"]  # 66 before the @


def test_every_wrong_field_is_named_beside_the_others(service: Service) -> None:
    answer = register(service, username="ab", email="a\u200b@example.com", password="password")
    assert list(refused(answer)) == ["username", "email", "password"]


def test_reserved_names_are_a_422_that_says_so(start_service: StartService) -> None:
    service = start_service(RESERVED_USERNAMES="admin,Root, system,support")
    account = service.sign_up()
    for name in ("admin", "ADMIN", " Admin ", "root", "\uff52\uff4f\uff4f\uff54", "system", "support"):
        assert refused(register(service, username=name)) == {"username": "is reserved"}
        changed = change(service, account, username=name)
        assert refused(changed) == {"username": "is reserved"}
    assert register(service, username="administrator").status_code == 201


def test_without_the_setting_no_name_is_reserved(service: Service) -> None:
    assert register(service, username="admin").status_code == 201
