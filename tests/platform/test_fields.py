"""Header fields are read as their RFCs say: white space, lists, several lines, quoted strings, what may come once."""

import asyncio
import json
import re
from collections.abc import Iterator

import pytest
from starlette.requests import Request

from infra.http.etags import IF_MATCH
from infra.http.fields import MediaType, media_type, members
from infra.http.problems import Problem
from tests.conftest import TEST_SETTINGS
from tests.support.servers import wait_until
from tests.support.service import Service
from tests.support.wire import Answer, ask_one, assert_problem, trace_id

TOKEN = "a-token-of-another-service"
LOGIN, ME, EVENTS = "/v1/auth/login", "/v1/auth/me", "/v1/events"
TRACE, OTHER = "0af7651916cd43dd8448eb211c80319c", "1bf7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"
JSON = "Content-Type: application/json"
BODY = '{"login": "a", "password": "b"}'


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({**TEST_SETTINGS, "EVENTS_TOKEN": TOKEN}) as one:
        yield one


@pytest.fixture(scope="module")
def access_token(service: Service) -> str:
    return service.sign_up().access_token


def send(service: Service, line: str, *lines: str, content: str = "") -> Answer:
    """One request with these header lines, byte for byte."""
    head = [f"{line} HTTP/1.1", "Host: x", *lines, f"Content-Length: {len(content)}", "Connection: close", "", content]
    return ask_one(service, "\r\n".join(head).encode("latin-1"))


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        ([], []),
        (["", " ", ",", " ,\t, "], []),
        (["a"], ["a"]),
        (["a,b", " c ,, d\t"], ["a", "b", "c", "d"]),
        (['"a,b", c;d="e,f"'], ['"a,b"', 'c;d="e,f"']),
        ([r'"a\",b",c'], [r'"a\",b"', "c"]),
        (['"a,b'], ['"a', "b"]),
    ],
)
def test_a_list_is_read(lines: list[str], found: list[str]) -> None:
    assert members(lines) == found


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["text/plain"], MediaType("text/plain", [])),
        (['\tText/PLAIN ; A=B; ;c="d;e\\"" '], MediaType("text/plain", [("a", "B"), ("c", 'd;e"')])),
        *(([wrong], None) for wrong in [
            "", "text", "text/", "/plain", "text /plain", "text/plain;a", "text/plain;a=", "text/plain;=b",
            "text/plain;a =b", "text/plain;a= b", 'text/plain;a="b', "text/plain, text/plain", "text/plain x",
        ]),
        (["text/plain", "text/plain"], None),
    ],
)  # fmt: skip
def test_a_media_type_is_read(lines: list[str], found: MediaType | None) -> None:
    assert media_type(lines) == found


@pytest.mark.parametrize(
    "field", ["x" + " " * 60_000 + "y", ",".join("x" * 30_000), '"' * 60_000, "a/b" + ";" * 60_000]
)
def test_a_long_field_is_read_in_no_time(field: str) -> None:
    members([field])
    media_type([field])


# Content-Type and Content-Encoding


@pytest.mark.parametrize(
    "said",
    [
        "application/json",
        " \tapplication/json\t ",
        "Application/JSON",
        "application/json;charset=utf-8",
        "application/json; charset=UTF-8",
        'application/json ;\tcharset="utf-8"',
        r'application/json; charset="ut\f-8"',
        "application/json; version=1",
        "application/json; version=1; charset=utf-8; x=y",
        'application/json; profile="https://x.example/a;b,c=\\"d\\""',
        'application/json; x="; charset=latin-1"',
        "application/json;",
        "application/json; ; charset=utf-8;",
    ],
)
def test_json_is_known_by_its_type_whatever_the_parameters(service: Service, said: str) -> None:
    assert_problem(send(service, f"POST {LOGIN}", f"Content-Type:{said}", content=BODY), 401)


@pytest.mark.parametrize(
    "said",
    [
        "",
        "json",
        "application/json charset=utf-8",
        "application/json; charset=latin-1",
        'application/json; charset="utf-16"',
        "application/json; charset=utf-8; charset=latin-1",
        "application/json; charset",
        "application/json; charset = utf-8",
        'application/json; x="y',
        "application/json, application/json",
        "application/json\r\nContent-Type: application/json",
        "application/json\r\nContent-Type: text/plain",
        "application/jsonx",
        "application/x+json",
        "text/plain; x=application/json",
        'text/plain; x="; application/json"',
    ],
)
def test_another_type_is_a_415(service: Service, said: str) -> None:
    assert_problem(send(service, f"POST {LOGIN}", f"Content-Type: {said}", content=BODY), 415)


@pytest.mark.parametrize("said", ["", "identity", "Identity\t", ", ,", "identity,\r\nContent-Encoding: identity"])
def test_a_body_without_a_coding_is_read(service: Service, said: str) -> None:
    assert_problem(send(service, f"POST {LOGIN}", JSON, f"Content-Encoding: {said}", content=BODY), 401)


@pytest.mark.parametrize(
    "said",
    ["gzip", "GZIP ", "br", "x-gzip", "identity, gzip", ",gzip", "identity\r\nContent-Encoding: deflate", "aes128gcm"],
)
@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        (LOGIN, "application/json"),
        ("/v1/auth/introspect", "application/x-www-form-urlencoded"),
        (EVENTS, "application/cloudevents+json"),
    ],
)
def test_an_encoded_body_is_a_415_that_says_what_is_taken(
    service: Service, path: str, content_type: str, said: str
) -> None:
    lines = [f"Content-Type: {content_type}", f"Content-Encoding: {said}", f"Authorization: Bearer {TOKEN}"]
    answer = send(service, f"POST {path}", *lines, content=BODY)
    assert_problem(answer, 415)
    assert answer.headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "said", ["application/x-www-form-urlencoded; x=y", 'Application/X-WWW-Form-urlencoded\t;charset="utf-8"']
)
def test_a_form_is_known_by_its_type(service: Service, said: str) -> None:
    lines = [f"Content-Type: {said}", f"Authorization: Bearer {TOKEN}"]
    assert send(service, "POST /v1/auth/introspect", *lines, content="token=x").json() == {"active": False}


# Authorization


@pytest.mark.parametrize("said", ["Bearer {}", "bearer {}", "\t Bearer   {} \t", "BEARER {}  "])
def test_a_token_is_read_whatever_the_white_space_and_the_case_of_its_scheme(
    service: Service, access_token: str, said: str
) -> None:
    assert send(service, f"GET {ME}", "Authorization:" + said.format(access_token)).status_code == 200


@pytest.mark.parametrize(
    "said", ["Bearer", "Bearer\t{}", "Bearer {} x", "Bearer {},", 'Bearer "{}"', "{}", "Token {}", "Bearer, Bearer {}"]
)
def test_what_is_no_token_is_a_401(service: Service, access_token: str, said: str) -> None:
    assert_problem(send(service, f"GET {ME}", "Authorization: " + said.format(access_token)), 401)


@pytest.mark.parametrize("path", [f"GET {ME}", f"POST {EVENTS}"])
def test_two_authorizations_are_a_400(service: Service, access_token: str, path: str) -> None:
    token = access_token if ME in path else TOKEN
    for other in (token, "x"):
        answer = send(service, path, f"Authorization: Bearer {token}", f"Authorization: Bearer {other}")
        assert_problem(answer, 400)
        assert 'error="invalid_request"' in answer.headers["www-authenticate"]


# Trace and request ids: W3C Trace Context, 3.2; X-Cloud-Trace-Context


@pytest.mark.parametrize(
    "lines",
    [
        [f"traceparent:  {TRACEPARENT} \t"],
        [f"TRACEPARENT:\t{TRACEPARENT}"],
        [f"X-Cloud-Trace-Context:  {TRACE}/1;o=1\t"],
        [f"traceparent: {TRACEPARENT}", f"X-Cloud-Trace-Context: {OTHER}/1;o=1"],
        ["traceparent: nonsense", f"X-Cloud-Trace-Context: {TRACE}/1"],
        [f"traceparent: {TRACEPARENT}", f"traceparent: {TRACEPARENT}", f"X-Cloud-Trace-Context: {TRACE}"],
    ],
)
def test_a_trace_is_read(service: Service, lines: list[str]) -> None:
    assert trace_id(send(service, "GET /", *lines)) == TRACE


@pytest.mark.parametrize(
    "lines",
    [
        [f"traceparent: {TRACEPARENT}", f"traceparent: {TRACEPARENT}"],
        [f"traceparent: {TRACEPARENT}", f"Traceparent: {TRACEPARENT.replace(TRACE, OTHER)}"],
        [f"traceparent: {TRACEPARENT}, {TRACEPARENT}"],
        [f"traceparent: {TRACEPARENT}", "traceparent:"],
        [f'traceparent: "{TRACEPARENT}"'],
        [f"X-Cloud-Trace-Context: {TRACE}", f"X-Cloud-Trace-Context: {OTHER}"],
    ],
)
def test_a_trace_that_is_told_twice_is_none(service: Service, lines: list[str]) -> None:
    assert trace_id(send(service, "GET /", *lines)) not in (TRACE, OTHER)


@pytest.mark.parametrize(
    ("lines", "kept"),
    [
        (["X-Request-ID: \t order-7 \t"], "order-7"),
        (["x-request-id: order-7"], "order-7"),
        (["X-Request-ID: order-7", "X-Request-ID: order-7"], None),
        (["X-Request-ID: order-7", "X-Request-ID: order-8"], None),
        (["X-Request-ID: order-7, order-8"], None),
        (['X-Request-ID: "order-7"'], None),
        (["X-Request-ID: order\t7"], None),
    ],
)
def test_a_request_id_is_kept_when_there_is_one(service: Service, lines: list[str], kept: str | None) -> None:
    found = send(service, "GET /", *lines).headers["x-request-id"]
    assert found == kept if kept else re.fullmatch(r"[0-9a-f-]{36}", found)


# If-None-Match (RFC 9110, 13.1.2)


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["{}"], 304),
        ([" \t{}\t"], 304),
        (["W/{}"], 304),
        (["*"], 304),
        (["*\t"], 304),
        (['"a", {}, "b"'], 304),
        ([',, "a,b" ,{},'], 304),
        (['"a"', "{}"], 304),
        (['"a" {}'], 200),
        (['"a"{}'], 200),
        (["x{}"], 200),
        (["w/{}"], 200),
        (["*, {}"], 200),
        (["'{}'"], 200),
        (['"a", {'], 200),
        ([""], 200),
        ([","], 200),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
def test_what_a_client_has_is_told_by_if_none_match(service: Service, path: str, lines: list[str], status: int) -> None:
    etag = service.client.get(path).headers["etag"]
    sent = [f"If-None-Match: {line.replace('{}', etag)}" for line in lines]
    answer = send(service, f"GET {path}", *sent)
    assert (answer.status_code, answer.headers["etag"]) == (status, etag)
    assert bool(answer.body) == (status == 200)
    unquoted = send(service, f"GET {path}", f"If-None-Match: {etag[1:-1]}")
    assert unquoted.status_code == 200


@pytest.mark.parametrize(
    ("lines", "matches"),
    [
        (['"5"'], True),
        ([' \t"5" '], True),
        (["*"], True),
        (["* "], True),
        (['"4", "5"'], True),
        ([',"4",,\t"5",'], True),
        (['"4"', '"5"'], True),
        (['"a,b", "5"'], True),
        (['W/"4", "5"'], True),
        (['W/"5"'], False),
        (['"4""5"'], False),
        (['"4" "5"'], False),
        (['"a"5""'], False),
        (['"4", *'], False),
        (['*, "5"'], False),
        (["5"], False),
        (["'5'"], False),
        (['"5'], False),
        (['"5", x'], False),
        (['"4,"5"'], False),
        ([r'"\"5"'], False),
        ([""], False),
        ([","], False),
    ],
)
def test_a_change_is_of_a_version_that_if_match_names(lines: list[str], matches: bool) -> None:
    async def check() -> None:
        request = Request({"type": "http", "headers": [(b"if-match", line.encode()) for line in lines]})
        (await IF_MATCH.read(request, None)).check('"5"')

    if matches:
        asyncio.run(check())
    else:
        with pytest.raises(Problem) as refused:
            asyncio.run(check())
        assert refused.value.status == 412


# Events in headers: the CloudEvents HTTP binding, 3.1

EVENT = {"specversion": "1.0", "source": "/tests", "type": "dev.berth.sessions.purge"}


def event(service: Service, *lines: str, **attributes: str) -> Answer:
    named = [f"ce-{name}: {value}" for name, value in (EVENT | attributes).items()]
    return send(service, f"POST {EVENTS}", f"Authorization: Bearer {TOKEN}", *named, *lines)


@pytest.mark.parametrize(
    "value",
    [
        "a", "a b", " a \t", "caf%C3%A9", "caf%c3%a9", "%61", "%22%20%25", "Euro%20%E2%82%AC%20%F0%9F%98%80",
        '"a b"', r'"a \"b\" \\ c"', '"caf%C3%A9, \\%25"', "a,b;c=d", "~!#$&'()*+/:<=>?@[\\]^_`{|}",
    ],
)  # fmt: skip
def test_an_attribute_in_a_header_is_decoded(service: Service, value: str) -> None:
    assert event(service, id=f"taken {value}" if value[0] != '"' else value, subject=value).status_code == 204


@pytest.mark.parametrize(
    "value",
    [
        "%", "%2", "%zz", "100%", "%C0%A0", "%ff", "%ED%A0%80", "%F4%90%80%80", "%E2%82", "%00", "%0A", "%1f", "%7F",
        "%C2%80", "%C2%9F", "%EF%BF%BE", "%EF%B7%90", "%F0%9F%BF%BF", "caf\xe9", "caf\xc3\xa9", 'a"b', '"a', '"a"b"',
        '"a\tb"', "a\tb", '"%00"', '"%C0%A0"', '"caf\xe9"', r'"\%C0\%A0"', '"a" "b"',
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["id", "subject", "anextension"])
def test_an_attribute_that_the_binding_forbids_is_a_400(service: Service, name: str, value: str) -> None:
    assert_problem(event(service, **{"id": "e", name: value}), 400)


@pytest.mark.parametrize("line", ["ce-datacontenttype: text/plain", "ce-a_b: x", "ce-a-b: x", "ce-: x", "ce-a.b: x"])
def test_a_header_of_no_attribute_is_a_400(service: Service, line: str) -> None:
    assert_problem(event(service, line, id="e"), 400)


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (" \tApplication/CloudEvents+JSON ; charset=utf-8; x=y", 204),
        ("application/cloudevents+json; charset", 415),
        ("application/cloudevents+json; charset=latin-1", 415),
        ("application/cloudevents-batch+json", 415),
        ("application/cloudevents+avro", 415),
        ("application/json", 422),
    ],
)
def test_an_event_in_the_body_is_known_by_its_type(service: Service, said: str, status: int) -> None:
    content = json.dumps(EVENT | {"id": "in a body"})
    lines = [f"Authorization: Bearer {TOKEN}", f"Content-Type:{said}"]
    assert send(service, f"POST {EVENTS}", *lines, content=content).status_code == status


def test_an_event_has_one_value_of_each_attribute(service: Service) -> None:
    problem = assert_problem(event(service, "ce-id: f", id="e"), 422)
    assert problem["errors"] == [{"field": "id", "message": "given more than once"}]


def test_an_id_is_one_however_it_is_encoded(service: Service) -> None:
    """An event that is known already is not worked at again."""

    def purges() -> int:
        return len(service.log(type="task", message="expired sessions purged"))

    before = purges()
    for value in ("caf%C3%A9 1", '"caf%C3%A9 1"', "%63af%c3%a9%201", "caf%25C3%25A9%201"):
        assert event(service, id=value).status_code == 204
    wait_until(lambda: purges() - before == 2, "the work of two events", within=10)
