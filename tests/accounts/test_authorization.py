"""Who may do what: every route with every kind of token. A route without a row fails."""

from collections.abc import Iterator

import jwt
import pytest
from starlette.routing import Route

from app import ROUTES
from tests.conftest import TEST_SETTINGS, backend_settings
from tests.faults.load import PASSWORD, QuickService
from tests.support.service import Account

KEY = "a key with which the tests sign as well"
OPERATORS = {"events": "the-token-of-a-scheduler", "metrics": "the-token-of-a-collector"}
REFUSED = dict.fromkeys(("none", "garbage", "expired", "revoked", "deleted", *OPERATORS), 401)


def everyone(status: int) -> dict[str, int]:
    """The token doesn't matter."""
    return dict.fromkeys((*REFUSED, "another's", "own"), status)


def accounts(own: int, anothers: int) -> dict[str, int]:
    """Accounts only; another's token acts on that other's account."""
    return {**REFUSED, "another's": anothers, "own": own}


def operator(kind: str, status: int) -> dict[str, int]:
    """Only the token made for it."""
    return everyone(401) | {kind: status}


# Without a body, or with one of BODIES: 422 means that nothing but the body was missing.
MATRIX = {
    "GET /": everyone(200),
    "GET /health/live": everyone(200),
    "GET /health/ready": everyone(200),
    "GET /health/startup": everyone(200),
    "POST /v1/auth/register": everyone(422),
    "POST /v1/auth/login": everyone(422),
    "POST /v1/auth/refresh": everyone(422),
    "POST /v1/auth/logout": accounts(own=204, anothers=204),
    "GET /v1/auth/me": accounts(own=200, anothers=200),
    "PATCH /v1/auth/me": accounts(own=200, anothers=200),
    "DELETE /v1/auth/me": accounts(own=204, anothers=204),
    "PUT /v1/auth/me/password": accounts(own=204, anothers=204),
    "GET /v1/auth/sessions": accounts(own=200, anothers=200),
    "DELETE /v1/auth/sessions/{id}": accounts(own=204, anothers=404),
    "POST /v1/auth/introspect": operator("events", 422),
    "POST /v1/events": operator("events", 422),
    "GET /metrics": operator("metrics", 200),
}
BODIES = {
    "PATCH /v1/auth/me": {},
    "DELETE /v1/auth/me": {"password": PASSWORD},
    "PUT /v1/auth/me/password": {"current_password": PASSWORD, "new_password": PASSWORD},
}


@pytest.fixture(scope="module")
def guarded(backend: str, request: pytest.FixtureRequest) -> Iterator[QuickService]:
    tokens = {"SECRET_KEY": KEY, "EVENTS_TOKEN": OPERATORS["events"], "METRICS_TOKEN": OPERATORS["metrics"]}
    with QuickService({**TEST_SETTINGS, **tokens, **backend_settings(backend, request)}) as service:
        yield service


def token_of(service: QuickService, kind: str, account: Account) -> str:
    """A token of this kind; only `own` and `expired` have to do with the account."""
    if kind == "own":
        return account.access_token
    if kind == "expired":
        claims = jwt.decode(account.access_token, options={"verify_signature": False}) | {"exp": 1}
        return jwt.encode(claims, KEY, headers={"kid": jwt.get_unverified_header(account.access_token)["kid"]})
    other = service.sign_up(password=PASSWORD)
    if kind == "revoked":
        service.log_in(other.username, PASSWORD)  # which stays
        assert service.client.post("/v1/auth/logout", headers=other.headers).status_code == 204
    if kind == "deleted":
        body = {"password": PASSWORD}
        deleted = service.client.request("DELETE", "/v1/auth/me", json=body, headers=other.headers)
        assert deleted.status_code == 204
    return (OPERATORS | {"garbage": "x.y.z"}).get(kind, other.access_token)


def use(service: QuickService, name: str, kind: str, account: Account) -> int:
    """The status of the route for this kind of token; a path that names a session names one of the account's."""
    method, path = name.split(" ")
    [session] = service.client.get("/v1/auth/sessions", headers=account.headers).json()["items"]
    headers = {"Authorization": f"Bearer {token_of(service, kind, account)}"} if kind != "none" else {}
    path = path.format(id=session["id"])
    return service.client.request(method, path, json=BODIES.get(name), headers=headers).status_code


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{max(route.methods - {'HEAD'})} {route.path}")
def test_each_kind_of_token_opens_what_it_must_and_nothing_else(guarded: QuickService, route: Route) -> None:
    for method in sorted((route.methods or set()) - {"HEAD"}):
        name = f"{method} {route.path}"
        assert name in MATRIX, f"{name} has no row: who may call it?"
        for kind, status in MATRIX[name].items():
            account = guarded.sign_up(password=PASSWORD)
            assert (kind, use(guarded, name, kind, account)) == (kind, status)
            if kind != "own":
                me = guarded.client.get("/v1/auth/me", headers=account.headers)
                assert (me.status_code, me.json()["username"]) == (200, account.username)
