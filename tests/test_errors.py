"""Errors: every one a problem document (RFC 9457) with the trace id of its request, and no input a 500."""

import json
from typing import Any

import httpx
import pytest

from tests.conftest import StartService
from tests.service import Account, Service

LOGIN = "/v1/auth/login"
JSON = {"Content-Type": "application/json"}
ROUTES = [
    ("POST", "/v1/auth/register"),
    ("POST", "/v1/auth/login"),
    ("POST", "/v1/auth/refresh"),
    ("PATCH", "/v1/auth/me"),
    ("DELETE", "/v1/auth/me"),
    ("PUT", "/v1/auth/me/password"),
]
GARBAGE: dict[str, bytes] = {
    "null": b"null",
    "a number": b"7",
    "an array": b"[]",
    "a text": b'"x"',
    "broken": b'{"a": ',
    "empty": b"",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "deep nesting": b"[" * 100_000,
    "deep nesting in a field": b'{"login": ' + b'{"a":' * 50_000,
    "a number beyond floats": b'{"login": 1e400, "password": 1e400}',
    "a number of 10,000 digits": b'{"login": ' + b"9" * 10_000 + b"}",
    "an escaped lone surrogate": rb'{"login": "\ud800", "username": "\udfff", "password": "\ud800\ud800"}',
    "a raw lone surrogate": b'{"login": "\xed\xa0\x80", "password": "x"}',
    "invalid UTF-8": b'{"login": "\xff\xfe", "password": "x"}',
    "NUL": rb'{"login": "a\u0000b", "password": "a\u0000bcdefgh"}',
    "a raw NUL": b'{"login": "a\x00b"}',
    "a megabyte": b'{"login": "' + b"x" * 1_000_000 + b'"}',
    "a duplicate key": b'{"login": "a", "login": "b", "password": "x"}',
    "an unknown field": b'{"admin": true}',
    "an unknown field of any name": rb'{"\u0000\ud83d\ude00`$.": 1}',
    "null in every field": json.dumps(
        dict.fromkeys(["username", "email", "login", "password", "current_password", "new_password", "refresh_token"])
    ).encode(),
}


@pytest.fixture(scope="module")
def somebody(service: Service) -> Account:
    return service.sign_up()


def assert_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    problem: dict[str, Any] = answer.json()
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) - {"errors"} == {"type", "title", "status", "detail", "instance", "trace_id"}
    assert problem["status"] == status
    assert problem["instance"] == answer.request.url.path
    assert problem["trace_id"] == answer.headers["traceparent"].split("-")[1]
    return problem


def test_an_unknown_path_is_a_404(service: Service) -> None:
    assert_problem(service.client.get("/v1/auth/nothing"), 404)


def test_a_path_with_a_slash_too_many_is_a_404_and_no_redirect(service: Service) -> None:
    assert_problem(service.client.get("/v1/auth/me/"), 404)


def test_a_wrong_method_is_a_405_with_all_that_the_path_allows(service: Service) -> None:
    answer = service.client.put("/v1/auth/me")
    assert_problem(answer, 405)
    assert answer.headers["allow"] == "DELETE, GET, HEAD, PATCH"


@pytest.mark.parametrize(
    "content_type", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "json", ""]
)
def test_a_body_that_is_not_json_by_its_type_is_a_415(service: Service, content_type: str) -> None:
    answer = service.client.post(
        LOGIN, content=b'{"login": "a", "password": "b"}', headers={"Content-Type": content_type}
    )
    assert_problem(answer, 415)


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"'])
def test_json_in_utf_8_may_say_so(service: Service, charset: str) -> None:
    headers = {"Content-Type": f"application/json; charset={charset}"}
    answer = service.client.post(LOGIN, content=b'{"login": "nobody", "password": "b"}', headers=headers)
    assert_problem(answer, 401)


@pytest.mark.parametrize("body", [b"{", b'{"login": "a", "login": }', b"\xff", b"{} {}", b"NaN", b"{'a': 1}"])
def test_broken_json_is_a_400(service: Service, body: bytes) -> None:
    assert_problem(service.client.post(LOGIN, content=body, headers=JSON), 400)


@pytest.mark.parametrize(
    ("body", "field", "message"),
    [
        ({"login": "a"}, "password", "required"),
        ({"login": "a", "password": "b", "role": "admin"}, "role", "unknown field"),
        ({"login": 7, "password": "b"}, "login", "expected `str`, got `int`"),
        ({"login": None, "password": "b"}, "login", "expected `str`, got `null`"),
        ({"login": "a\0b", "password": "b"}, "login", "must not contain NUL"),
        ({"login": "", "password": "b"}, "login", "expected a username or an email address"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_wrong_shape_is_a_422_that_names_the_field(
    service: Service, body: dict[str, Any], field: str, message: str
) -> None:
    problem = assert_problem(service.client.post(LOGIN, json=body), 422)
    assert problem["errors"] == [{"field": field, "message": message}]


def test_a_key_given_twice_is_a_422_that_names_it(service: Service) -> None:
    body = b'{"login": "a", "login": "b", "password": "c"}'
    problem = assert_problem(service.client.post(LOGIN, content=body, headers=JSON), 422)
    assert problem["errors"] == [{"field": "login", "message": "given more than once"}]


@pytest.mark.parametrize("body", GARBAGE.values(), ids=GARBAGE.keys())
@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_garbage_is_a_4xx(service: Service, somebody: Account, method: str, path: str, body: bytes) -> None:
    answer = service.client.request(method, path, content=body, headers=JSON | somebody.headers)
    expected = {400, 401, 403, 413, 422} | ({200} if method == "PATCH" and b"{}" in body else set())
    assert answer.status_code in expected
    assert_problem(answer, answer.status_code)


@pytest.mark.parametrize(
    "path", ["/%00", "/%ff", "//", "/../etc/passwd", "/" + "a" * 10_000, "/v1/auth/sessions/%F0%9F%9A%80"]
)
def test_a_strange_path_is_a_4xx(service: Service, path: str) -> None:
    head, _, body = service.raw(
        b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ).partition(b"\r\n\r\n")
    assert head.split()[1] in {b"400", b"404", b"405"}
    assert json.loads(body)["trace_id"]


def test_an_error_in_prod_tells_no_details(start_service: StartService) -> None:
    service = start_service("mysql+redis", SYS_ENV="prod", SECRET_KEY="k" * 32, REDIS_PASSWORD="")
    answer = service.client.post(LOGIN, content=b"{", headers=JSON)
    assert "Traceback" not in answer.text
