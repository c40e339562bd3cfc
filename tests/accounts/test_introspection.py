"""Introspection: what other services are told of a token, and which of them."""

import sys
from collections.abc import Iterator
from typing import Any

import httpx
import jwt
import pytest

from tests.conftest import EVENTS_TOKEN, StartService
from tests.support.servers import Server
from tests.support.service import ROOT, Account, Service
from tests.support.wire import assert_problem

PATH = "/v1/auth/introspect"
BEARER = {"Authorization": f"Bearer {EVENTS_TOKEN}"}
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
INACTIVE = {"active": False}
KEY = "a key that is known to the test, to sign with"


def introspect(service: Service, token: str, **others: str) -> dict[str, Any]:
    answer = service.client.post(PATH, data={"token": token} | others, headers=BEARER)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_live_access_token_is_active_and_says_whose_it_is(service: Service, account: Account) -> None:
    claims = jwt.decode(account.access_token, options={"verify_signature": False})
    assert introspect(service, account.access_token) == {
        "active": True,
        "token_type": "Bearer",
        "sub": account.id,
        "username": account.username,
        "sid": claims["sid"],
        "exp": claims["exp"],
    }


def test_a_live_refresh_token_is_inactive_and_still_lives(service: Service, account: Account) -> None:
    assert introspect(service, account.refresh_token) == INACTIVE
    body = {"refresh_token": account.refresh_token}
    assert service.client.post("/v1/auth/refresh", json=body).status_code == 200


def test_a_hint_of_the_tokens_type_changes_nothing(service: Service, account: Account) -> None:
    for hint in ("access_token", "refresh_token", "anything"):
        assert introspect(service, account.access_token, token_type_hint=hint)["active"]
        assert introspect(service, account.refresh_token, token_type_hint=hint) == INACTIVE


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "brt_x", "\U0001f511", "x" * 100_000, EVENTS_TOKEN])
def test_what_is_no_token_of_ours_is_inactive(service: Service, token: str) -> None:
    assert introspect(service, token) == INACTIVE


def test_a_token_of_another_key_is_inactive(service: Service, account: Account) -> None:
    claims = jwt.decode(account.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(account.access_token)
    assert introspect(service, jwt.encode(claims, KEY, headers=header)) == INACTIVE


def test_the_tokens_of_a_session_that_has_ended_are_inactive(service: Service, account: Account) -> None:
    assert introspect(service, account.access_token)["active"]
    service.client.post("/v1/auth/logout", headers=account.headers)
    assert introspect(service, account.access_token) == INACTIVE
    assert introspect(service, account.refresh_token) == INACTIVE


def test_the_tokens_of_a_deleted_account_are_inactive(service: Service, account: Account) -> None:
    body = {"password": account.password}
    assert service.client.request("DELETE", "/v1/auth/me", json=body, headers=account.headers).status_code == 204
    assert introspect(service, account.access_token) == INACTIVE
    assert introspect(service, account.refresh_token) == INACTIVE


def test_to_ask_of_a_spent_refresh_token_ends_no_session(service: Service, account: Account) -> None:
    service.client.post("/v1/auth/refresh", json={"refresh_token": account.refresh_token})
    assert introspect(service, account.refresh_token) == INACTIVE
    assert introspect(service, account.access_token)["active"]


def test_tokens_that_have_expired_are_inactive(start_service: StartService) -> None:
    service = start_service(SECRET_KEY=KEY, EVENTS_TOKEN=EVENTS_TOKEN)
    account = service.sign_up()
    claims = jwt.decode(account.access_token, options={"verify_signature": False})
    header = jwt.get_unverified_header(account.access_token)
    assert introspect(service, jwt.encode(claims, KEY, headers=header))["active"]
    assert introspect(service, jwt.encode(claims | {"exp": 1}, KEY, headers=header)) == INACTIVE


def test_an_answer_is_not_kept_by_caches(service: Service) -> None:
    answer = service.client.post(PATH, data={"token": "x"}, headers=BEARER)
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize("authorization", ["", "Bearer wrong", f"Bearer {EVENTS_TOKEN}x", "Basic YTpi", "Bearer \xe9"])
def test_whoever_has_not_the_services_token_is_told_nothing(service: Service, authorization: str) -> None:
    headers = {b"Authorization": authorization.encode("latin-1")}
    answer = service.client.post(PATH, data={"token": "x"}, headers=headers)
    assert_problem(answer, 401, PATH)
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_an_account_may_not_ask(service: Service, account: Account) -> None:
    assert_problem(service.client.post(PATH, data={"token": account.access_token}, headers=account.headers), 401)


def test_without_a_token_in_the_settings_there_is_no_introspection(start_service: StartService) -> None:
    service = start_service()
    assert_problem(service.client.post(PATH, data={"token": "x"}, headers=BEARER), 404, PATH)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"tokens=x", 422),
        (b"token=x&token=y", 422),
        (b"token=%00", 422),
        (b"token=%ff", 400),
        (b"\xff", 400),
        (b"a=b&" * 101, 400),
    ],
)
def test_a_form_without_one_well_formed_token_is_refused(service: Service, body: bytes, status: int) -> None:
    assert_problem(service.client.post(PATH, content=body, headers=BEARER | FORM), status, PATH)


@pytest.mark.parametrize("content_type", ["application/json", "multipart/form-data; boundary=x", "text/plain"])
def test_what_is_not_a_form_is_a_415(service: Service, content_type: str) -> None:
    headers = BEARER | {"Content-Type": content_type}
    assert_problem(service.client.post(PATH, content=b"token=x", headers=headers), 415, PATH)


class Orders(Server):
    """examples/orders.py, on its own port."""

    def __init__(self, asked: str) -> None:
        super().__init__()
        self.asked = asked
        self.url = f"http://127.0.0.1:{self.port}/orders"

    def command_line(self) -> list[str]:
        environment = [f"BERTH_URL={self.asked}", f"EVENTS_TOKEN={EVENTS_TOKEN}"]
        serve = [sys.executable, "-m", "uvicorn", "--app-dir", str(ROOT / "examples"), "--port", str(self.port)]
        return ["env", *environment, *serve, "orders:app"]

    def answers(self) -> bool:
        try:
            return bool(self.get().status_code)
        except httpx.TransportError:
            return False

    def get(self, token: str = "") -> httpx.Response:
        return httpx.get(self.url, headers={"Authorization": f"Bearer {token}"} if token else {}, trust_env=False)


@pytest.fixture
def orders(service: Service) -> Iterator[Orders]:
    with Orders(service.url) as example:
        yield example


def test_the_example_serves_whom_berth_has_logged_in(orders: Orders, service: Service, account: Account) -> None:
    assert orders.get(account.access_token).json() == {"orders_of": account.username}
    assert [orders.get(token).status_code for token in ("", "nonsense", account.refresh_token)] == [401, 401, 401]
    service.client.post("/v1/auth/logout", headers=account.headers)
    assert orders.get(account.access_token).status_code == 401
