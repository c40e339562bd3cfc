"""What clients may send to get in, or into a log line. Bodies, paths, headers as such: tests/test_errors.py."""

import httpx
import jwt
import pytest

from tests.conftest import StartService
from tests.faults.load import QuickService

FORGED = '{"severity":"CRITICAL","message":"forged","type":"audit"}'


@pytest.mark.parametrize(
    "login",
    [
        "' OR '1'='1",
        "' OR 1=1 -- ",
        "\\' OR 1=1 #",
        "%",
        "_%",
        ":key",
        "%(key)s",
        "%s",
        "{key}",
        "a' UNION SELECT 1,2 --",
    ],
)
def test_sql_in_a_login_is_a_name_that_nobody_has(quick_service: QuickService, login: str) -> None:
    account = quick_service.sign_up()
    body = {"login": login, "password": account.password}
    assert quick_service.client.post("/v1/auth/login", json=body).status_code == 401


@pytest.mark.parametrize("local", ["o'neil", 'o"neil', "a\\b", "a%s", ":now", "a%(now)s", "a;--", "100%"])
def test_sql_in_an_email_comes_back_as_it_was(quick_service: QuickService, local: str) -> None:
    account = quick_service.sign_up(email=f"{local}@example.com")
    assert account.email == f"{local}@example.com"
    assert quick_service.log_in(account.email, account.password).id == account.id
    quick_service.client.request("DELETE", "/v1/auth/me", json={"password": account.password}, headers=account.headers)


@pytest.mark.parametrize("lookalike", ["s\u0430ilor", "sa\u0131lor", "sail\u03bfr", "sailo\u200br", "\u202esailor"])
def test_a_name_that_only_looks_the_same_opens_nothing(quick_service: QuickService, lookalike: str) -> None:
    account = quick_service.sign_up()
    for name in (account.username, account.email):
        body = {"login": name.replace("sailor", lookalike, 1), "password": account.password}
        assert quick_service.client.post("/v1/auth/login", json=body).status_code == 401


@pytest.mark.parametrize("same", ["\uff53ailor", "SAILOR", "\u017failor"], ids=ascii)
def test_a_name_in_other_forms_of_the_same_letters_is_the_same(quick_service: QuickService, same: str) -> None:
    account = quick_service.sign_up()
    assert quick_service.log_in(account.email.replace("sailor", same, 1), account.password).id == account.id


def test_a_token_that_is_not_valid_yet_is_a_401(start_service: StartService) -> None:
    key = "a key that the test has as well, to sign with"
    service = start_service(SECRET_KEY=key)
    account = service.sign_up()
    claims = jwt.decode(account.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(account.access_token)
    later, now = (jwt.encode(claims | {"nbf": claims["iat"] + s}, key, headers=header) for s in (3600, 0))
    statuses = [
        service.client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code
        for token in (later, now)
    ]
    assert statuses == [401, 200]


def test_a_token_cut_anywhere_is_a_401(quick_service: QuickService) -> None:
    token = quick_service.sign_up().access_token
    dots = token.index("."), token.rindex(".")
    for length in (1, dots[0], dots[0] + 1, dots[1], dots[1] + 1, len(token) - 1):
        answer = quick_service.client.get("/v1/auth/me", headers={"Authorization": f"Bearer {token[:length]}"})
        assert answer.status_code == 401


def test_a_token_of_another_environment_is_a_401(start_service: StartService) -> None:
    one, two = (start_service(SECRET_KEY=f"the secret key of environment {number} alone") for number in (1, 2))
    account = one.sign_up()
    assert two.client.get("/v1/auth/me", headers=account.headers).status_code == 401


def test_nothing_that_a_client_sends_makes_a_log_line_of_its_own(start_service: StartService) -> None:
    service = start_service(LOG_LEVEL="DEBUG")
    for text in (f"x%0a{FORGED}", f"x%0d%0a{FORGED}", f"%22%7d%0a{FORGED}", f"x%e2%80%a8{FORGED}", f"%1b[2K{FORGED}"):
        path = text.replace('"', "%22").replace("{", "%7b").replace("}", "%7d")
        headers = [("User-Agent", f"x\x85{FORGED}"), ("X-Request-ID", FORGED), ("traceparent", FORGED)]
        service.client.get(f"/{path}", headers=httpx.Headers(headers, encoding="latin-1"))
        service.client.post("/v1/auth/login", json={"login": f"x\n{FORGED}", "password": f"x\r\n{FORGED}"})
    assert service.stop() == 0  # which takes every line for one JSON object
    assert not service.log(message="forged")
    assert not service.log(severity="CRITICAL")
    assert not any("\x1b" in line or "\x85" in line or "\u2028" in line for line in service.output)
