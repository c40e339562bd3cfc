"""Who may do what: every operation with every kind of token, as it declares who may call it.

What an operation is asked with follows from /openapi.json: the body's required fields from their examples, what its
path names from the list that it is in.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import jwt
import pytest

from app import PARTS, ROUTES
from infra.http.app import bind
from infra.http.operations import Operation, operations_of
from tests.conftest import TEST_SETTINGS, backend_settings
from tests.faults.load import QuickService
from tests.support.service import Account

Json = dict[str, Any]

KEY = "a key with which the tests sign as well"
PASSWORD = "correct horse"  # the example of /openapi.json
OPERATORS = {"events_token": "the-token-of-a-scheduler", "metrics_token": "the-token-of-a-collector"}
STRANGERS = ("none", "garbage", "expired", "revoked", "deleted")
KINDS = (*STRANGERS, *OPERATORS, "another's", "own")
HEADERS = {"If-Match": "*"}  # with which whatever is there may be changed

# Anybody may call these. All others must demand a token.
PUBLIC = {
    "GET /",
    "GET /health/live",
    "GET /health/ready",
    "GET /health/startup",
    "POST /v1/auth/register",
    "POST /v1/auth/login",
    "POST /v1/auth/refresh",
}
OPERATIONS = {f"{method} {route.path}": operation for route, method, operation in operations_of(bind(ROUTES, PARTS))}


@pytest.fixture(scope="module")
def guarded(backend: str, request: pytest.FixtureRequest) -> Iterator[QuickService]:
    tokens = {"SECRET_KEY": KEY, **{setting.upper(): token for setting, token in OPERATORS.items()}}
    with QuickService({**TEST_SETTINGS, **tokens, **backend_settings(backend, request)}) as service:
        yield service


@pytest.fixture(scope="module")
def document(guarded: QuickService) -> Json:
    found: Json = guarded.client.get("/openapi.json").json()
    return found


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


def example_of(document: Json, path: str, method: str) -> Json | None:
    """What the body must have; None when there is none, or it isn't JSON."""
    body = document["paths"][path][method.lower()].get("requestBody", {}).get("content", {}).get("application/json")
    if not body:
        return None
    schema = document["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]
    return {name: schema["properties"][name]["examples"][0] for name in schema["required"]}


def path_of(service: QuickService, document: Json, path: str, account: Account) -> str:
    """With the id of something of the account's, which is made where the list may be added to."""
    lists, parameter, rest = path.partition("/{")
    if not parameter:
        return path
    if "post" in document["paths"][lists]:
        made = service.client.post(lists, json=example_of(document, lists, "POST"), headers=account.headers)
        assert made.status_code == 201, made.text
    [item] = service.client.get(lists, headers=account.headers).json()["items"]
    return f"{lists}/{item['id']}{rest.partition('}')[2]}"


def allowed(operation: Operation, kind: str) -> bool:
    if not operation.security:
        return True
    return kind in operation.security if operation.bearer else kind in ("own", "another's")


def expected(operation: Operation, path: str, kind: str, sent: Mapping[str, Any] | None) -> int:
    if not allowed(operation, kind):
        return 401
    if kind == "another's" and "{" in path:
        return 404
    needs_body = any(parameter.name in ("body", "form", "event") for parameter in operation.parameters)
    usual = operation.status if operation.status in operation.answers else min(operation.answers)
    return 422 if needs_body and sent is None else usual


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_kind_of_token_opens_what_it_must_and_nothing_else(
    guarded: QuickService, document: Json, name: str
) -> None:
    method, path = name.split(" ")
    operation = OPERATIONS[name]
    body = example_of(document, path, method) if "access_token" in operation.security else None
    for kind in KINDS:
        account = guarded.sign_up(password=PASSWORD)
        url = path_of(guarded, document, path, account)
        token = token_of(guarded, kind, account)
        headers = HEADERS | ({"Authorization": f"Bearer {token}"} if kind != "none" else {})
        answer = guarded.client.request(method, url, json=body, headers=headers)
        assert (kind, answer.status_code) == (kind, expected(operation, path, kind, body)), answer.text
        if kind != "own":
            me = guarded.client.get("/v1/auth/me", headers=account.headers)
            assert (me.status_code, me.json()["username"]) == (200, account.username)


def test_only_what_is_meant_for_everybody_asks_for_no_token() -> None:
    assert {name for name, operation in OPERATIONS.items() if not operation.security} == PUBLIC
    assert OPERATIONS["GET /metrics"].bearer_optional  # but not in prod
    assert [name for name, operation in OPERATIONS.items() if operation.bearer_optional] == ["GET /metrics"]
