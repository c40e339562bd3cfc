"""Every error is a problem document (RFC 9457), and no input gives a 500."""

import json
import random
import re
from collections.abc import Iterator

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.routing import Route

from app import ROUTES
from tests.support.service import Account, Service
from tests.support.wire import ask_one, assert_problem

JSON = {"Content-Type": "application/json"}
LOGIN, REGISTER, ME = "/v1/auth/login", "/v1/auth/register", "/v1/auth/me"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]

NOT_JSON = {
    "nothing": b"",
    "half": b'{"login": "a", "pass',
    "a word": b"hello",
    "two documents": b"{} {}",
    "a comment": b"{/* */}",
    "NaN": b'{"login": NaN}',
    "single quotes": b"{'login': 'a'}",
    "an open string": b'"',
    "100,000 brackets": b"[" * 100_000,
    "100,000 objects": b'{"a":' * 100_000,
    "invalid UTF-8": b'{"login": "\xff\xfe", "password": "x"}',
    "an overlong slash": b'{"login": "\xc0\xaf", "password": "x"}',
    "a raw lone surrogate": b'{"login": "\xed\xa0\x80", "password": "x"}',
    "an escaped lone surrogate": b'{"login": "\\ud800", "password": "x"}',
    "a byte order mark": b'\xef\xbb\xbf{"login": "a", "password": "x"}',
    "UTF-16": '{"login": "a", "password": "x"}'.encode("utf-16"),
    "a raw newline in a string": b'{"login": "a\nb", "password": "x"}',
    "a raw NUL": b'{"login": "a\0b", "password": "x"}',
    "an escaped surrogate as a name": b'{"\\ud800": 1}',
    "an escaped surrogate as a name, twice": b'{"\\ud800": 1, "\\ud800": 1}',
    "an escaped surrogate as a name, deep": b'{"login": "a", "password": {"x": [{"\\udfff": 1}]}}',
}
WRONG_SHAPE = {
    "an array": (b'[{"login": "a"}]', ""),
    "a string": (b'"login"', ""),
    "null": (b"null", ""),
    "a number": (b"1", ""),
    "a missing field": (b'{"login": "a"}', "password"),
    "an unknown field": (b'{"login": "a", "password": "x", "admin": true}', "admin"),
    "a field set to null": (b'{"login": null, "password": "x"}', "login"),
    "a number for a text": (b'{"login": 1, "password": "x"}', "login"),
    "a list for a text": (b'{"login": ["a"], "password": "x"}', "login"),
    "an object for a text": (b'{"login": {"$ne": ""}, "password": "x"}', "login"),
    "an empty text": (b'{"login": "", "password": "x"}', "login"),
    "a NUL": (b'{"login": "a\\u0000b", "password": "x"}', "login"),
    "a field twice": (b'{"login": "a", "login": "b", "password": "x"}', "login"),
    "a field twice, once escaped": (b'{"login": "a", "\\u006cogin": "b", "password": "x"}', "login"),
    "a text of nearly 1 MB": (b'{"login": "%s", "password": "x"}' % (b"a" * 1_000_000), "login"),
    "1e400 for a text": (b'{"login": 1e400, "password": "x"}', "login"),
}
# Whether such a body is broken JSON or of the wrong shape, it is told early or late: 400 or 422.
EITHER = {
    "brackets in a known field": b'{"login": ' + b"[" * 100_000 + b"]" * 100_000 + b', "password": "x"}',
    "brackets in an unknown field": b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "1e400": b"1e400",
    "10,000 digits": b'{"login": ' + b"9" * 10_000 + b', "password": "x"}',
    "10,000 digits in an unknown field": b'{"x": ' + b"9" * 10_000 + b"}",
    "an exponent of 10,000 digits": b'{"login": 1e' + b"9" * 10_000 + b', "password": "x"}',
    "101 such names and a number without end": b'{"x": 1e999, %s}'
    % b",".join(b'"\\ud800a%d": 1, "\\ud800a%d": 1' % (n, n) for n in range(101)),
    "a NUL as a name": b'{"\\u0000": 1}',
    "a long name": b'{"' + b"n" * 100_000 + b'": 1}',
    "a backtick as a name": b'{"`": {"` - at `$": 1}}',
    "50,000 names": json.dumps({str(n): n for n in range(50_000)}).encode(),
}
HARMLESS = {"valid but meaningless": b'{"login": "nobody", "password": "wrong"}'}
ALL_BODIES = [
    *NOT_JSON.values(),
    *(body for body, _ in WRONG_SHAPE.values()),
    *EITHER.values(),
    *HARMLESS.values(),
    b'{"refresh_token": "\\u0000"}',
    b'{"refresh_token": "' + "\U0001f511".encode() * 250 + b'"}',
    b'{"password": ""}',
    b'{"current_password": "x", "new_password": "x"}',
    b'{"username": "a\\n", "email": "a@b", "password": "x"}',
]
PATHS = [
    "/%00",
    "/%ff",
    "/%ed%a0%80",
    "//",
    "//v1/auth/me",
    "/v1//auth/me",
    "/v1/auth/me/",
    "/v1/auth/../auth/mee",
    "/../../etc/passwd",
    "/v1/auth/%2e%2e/mee",
    "/%0d%0aX-Injected:%20yes",
    "/%",
    "/%zz",
    "/\\",
    "/;a=b",
    "/" + "a" * 30_000,
    "/" + "%f0%9f%94%91" * 1000,
    "/healthz",
    "/favicon.ico",
]
IDS = ["%00", "%ff", "%ed%a0%80", "%F0%9F%94%91", "x" * 30_000, "'%20OR%201=1--", "%0a", "..%2f", "null", "%25", "-1"]


def post(service: Service, body: bytes, path: str = LOGIN, **headers: str) -> httpx.Response:
    return service.client.post(path, content=body, headers=JSON | headers)


def test_an_unknown_path_is_a_404(service: Service) -> None:
    assert_problem(service.client.get("/nowhere"), 404, "/nowhere")


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path[:40])
def test_a_strange_path_is_a_404_or_not_http_at_all(service: Service, path: str) -> None:
    answer = ask_one(service, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.status_code in (400, 404)
    assert_problem(answer, answer.status_code)
    assert "x-injected" not in answer.headers


@pytest.mark.parametrize("path", ["/caf\u00e9", "/\x01", "/a\tb", "nowhere"])
def test_a_path_that_http_does_not_allow_is_a_400(service: Service, path: str) -> None:
    sent = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    assert_problem(ask_one(service, sent), 400)


@pytest.mark.parametrize("session_id", IDS, ids=lambda text: text[:20])
def test_a_strange_id_in_the_path_is_a_404(service: Service, account: Account, session_id: str) -> None:
    sent = f"DELETE /v1/auth/sessions/{session_id} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
    sent += f"Authorization: Bearer {account.access_token}\r\n\r\n"
    assert_problem(ask_one(service, sent.encode()), 404)


@pytest.mark.parametrize("query", ["limit=%00", "after=%ff", "limit=%F0%9F%94%91", "&&==", "limit=" + "9" * 9999])
def test_a_strange_query_is_a_422_or_nothing(service: Service, account: Account, query: str) -> None:
    answer = service.client.get(f"/v1/auth/sessions?{query}", headers=account.headers)
    assert answer.status_code in (200, 422)


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/", {"GET", "HEAD"}),
        (LOGIN, {"POST"}),
        (ME, {"GET", "HEAD", "PATCH", "DELETE"}),
        ("/v1/auth/me/password", {"PUT"}),
        ("/v1/auth/sessions", {"GET", "HEAD"}),
        ("/v1/auth/sessions/1", {"DELETE"}),
        ("/health/live", {"GET", "HEAD"}),
    ],
)
@pytest.mark.parametrize("method", ["TRACE", "PROPFIND", "OPTIONS"])
def test_a_wrong_method_is_a_405_with_every_method_of_the_path(
    service: Service, path: str, allow: set[str], method: str
) -> None:
    answer = service.client.request(method, path)
    assert_problem(answer, 405, path)
    assert set(answer.headers["allow"].split(", ")) == allow


def test_head_is_get_without_a_body(service: Service) -> None:
    head, get = service.client.head("/"), service.client.get("/")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == get.headers["content-length"]


def test_an_error_to_head_has_no_body_and_the_connection_goes_on(service: Service) -> None:
    with httpx.Client(base_url=service.url, trust_env=False) as client:
        answers = [client.head("/nowhere"), client.get("/nowhere")]
    assert [answer.status_code for answer in answers] == [404, 404]
    assert answers[0].content == b""


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=latin-1",
        "application/json; charset=utf-16",
        "application/jsonp",
        "application/problem+json",
        "application/json, text/plain",
        "json",
        "",
    ],
)
def test_a_body_of_another_type_is_a_415(service: Service, content_type: str) -> None:
    answer = service.client.post(LOGIN, content=b"{}", headers={"Content-Type": content_type})
    assert_problem(answer, 415, LOGIN)


def test_a_body_without_a_type_is_a_415(service: Service) -> None:
    assert_problem(service.client.post(LOGIN, content=b"{}"), 415, LOGIN)


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'],
)
def test_json_in_utf8_is_taken_however_its_type_is_written(service: Service, content_type: str) -> None:
    answer = service.client.post(LOGIN, content=b"{}", headers={"Content-Type": content_type})
    assert_problem(answer, 422, LOGIN)


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON)
def test_what_is_not_json_is_a_400(service: Service, body: bytes) -> None:
    assert_problem(post(service, body), 400, LOGIN)


@pytest.mark.parametrize(("body", "field"), WRONG_SHAPE.values(), ids=WRONG_SHAPE)
def test_json_of_the_wrong_shape_is_a_422_that_names_the_field(service: Service, body: bytes, field: str) -> None:
    problem = assert_problem(post(service, body), 422, LOGIN)
    assert [error["field"] for error in problem["errors"]] == [field]


@pytest.mark.parametrize("body", EITHER.values(), ids=EITHER)
def test_hostile_json_is_a_400_or_a_422(service: Service, body: bytes) -> None:
    answer = post(service, body)
    assert answer.status_code in (400, 422)
    assert_problem(answer, answer.status_code, LOGIN)


def test_every_wrong_field_is_named_not_only_the_first(service: Service) -> None:
    body = b'{"username": "a b", "email": 1, "admin": true, "admin": false}'
    problem = assert_problem(post(service, body, REGISTER), 422, REGISTER)
    assert problem["errors"] == [
        {"field": "username", "message": "expected 3 to 64 of the characters A-Z a-z 0-9 . _ -"},
        {"field": "email", "message": "expected a string"},
        {"field": "admin", "message": "unknown field"},
        {"field": "password", "message": "required"},
    ]
    assert problem["detail"] == "username: expected 3 to 64 of the characters A-Z a-z 0-9 . _ -, and 3 more"


def test_no_body_and_no_type_is_a_422(service: Service) -> None:
    assert_problem(service.client.post(LOGIN), 422, LOGIN)


def test_an_error_does_not_repeat_what_was_sent(service: Service) -> None:
    answer = post(service, b'{"login": "a", "password": {"secret-value": 1}}')
    assert "secret-value" not in answer.text


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{','.join(sorted(route.methods))} {route.path}")
def test_no_body_gives_a_500(service: Service, account: Account, route: Route) -> None:
    for method in sorted(route.methods or ()):
        for body, headers in cases(account):
            if route.path.endswith("/logout") and "Authorization" in headers and body:
                continue  # the first one ends the session
            answer = service.client.request(method, re.sub(r"{\w+}", "x", route.path), content=body, headers=headers)
            assert answer.status_code < 500, (method, body[:100], answer.text[:500])


def cases(account: Account) -> Iterator[tuple[bytes, dict[str, str]]]:
    for body in ALL_BODIES:
        yield body, JSON
        yield body, JSON | account.headers
    yield b"\xff", {}
    yield b"token=%ff", {"Content-Type": "application/x-www-form-urlencoded"}


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
def test_no_method_gives_a_500(service: Service, path: str) -> None:
    for method in METHODS:
        answer = service.client.request(method, re.sub(r"{\w+}", "x", path), content=b"{}", headers=JSON)
        assert answer.status_code < 500, (method, answer.text[:500])


@pytest.mark.parametrize(
    "value",
    [
        b"Bearer",
        b"Bearer \xff\xfe",
        b"Bearer a.b.c",
        b"Bearer ...",
        b"Bearer " + b"a" * 30_000,
        b"Bearer eyJhbGciOiJub25lIn0.e30.",
        b"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6W119.e30.AA",
        b"Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6MX0.e30.AA",
        b"Bearer eyJhbGciOlsxXX0.e30.AA",
        b"Basic Og==",
        b"bearer\tx",
        "Bearer \u00e9".encode(),
    ],
    ids=lambda value: repr(value[:40]),
)
def test_a_strange_authorization_is_a_401(service: Service, value: bytes) -> None:
    answer = service.client.get(ME, headers=[(b"Authorization", value)])
    assert_problem(answer, 401, ME)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("name", ["User-Agent", "X-Request-ID", "X-Forwarded-For", "Forwarded", "Cookie", "Host"])
@pytest.mark.parametrize("value", [b"\xff\xfe", b"", b"\xf0\x9f\x94\x91" * 500, b"[::1", b"a, b,, c", b"%00%ff", b"'"])
def test_no_header_gives_a_500(service: Service, name: str, value: bytes) -> None:
    sent = b"POST /v1/auth/login HTTP/1.1\r\n%s: %s\r\nContent-Type: application/json\r\n" % (name.encode(), value)
    body = b'{"refresh_token": "x"}'
    sent += b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    answer = ask_one(service, sent)
    assert answer.status_code in (400, 422)
    assert_problem(answer, answer.status_code)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=300),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)
FIELDS = ["login", "username", "email", "password", "refresh_token", "current_password", "new_password"]
ENDPOINTS = [("POST", "login"), ("POST", "register"), ("POST", "refresh"), ("PATCH", "me"), ("PUT", "me/password")]


@settings(
    max_examples=150,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    endpoint=st.sampled_from(ENDPOINTS),
    body=st.one_of(
        st.dictionaries(st.sampled_from(FIELDS), JSON_VALUES, min_size=1).map(lambda value: json.dumps(value).encode()),
        JSON_VALUES.map(lambda value: json.dumps(value).encode()),
        st.binary(max_size=200),
    ),
)
def test_no_generated_body_gives_a_500(service: Service, endpoint: tuple[str, str], body: bytes) -> None:
    method, name = endpoint
    answer = service.client.request(method, f"/v1/auth/{name}", content=body, headers=JSON)
    assert answer.status_code < 500, answer.text


def test_a_thousand_random_bytes_never_end_in_silence(service: Service) -> None:
    chance = random.Random(1)
    for _ in range(30):
        noise = chance.randbytes(1000) + b"\r\n\r\n"
        assert_problem(ask_one(service, noise), 400)
