"""What a request's head may be (RFC 9112): version, Host, target, transfer coding; and what HTTP/1.0 is answered."""

import asyncio
import json
import socket
import time
from collections.abc import Iterator

import pytest

from tests.conftest import TEST_SETTINGS
from tests.support.asgi import body, fields, sending, served, start
from tests.support.service import Service, read_all
from tests.support.wire import ask, ask_one, assert_problem

TOKEN = "a-token-of-another-service"
LIVE = b"GET /health/live HTTP/1.1\r\n"
CLOSE = b"Connection: close\r\n\r\n"
POST = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
CHUNKS = b"2\r\n{}\r\n0\r\n\r\n"


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with Service({**TEST_SETTINGS, "EVENTS_TOKEN": TOKEN, "METRICS_TOKEN": TOKEN}) as one:
        yield one


@pytest.fixture(scope="module")
def named(service: Service) -> Iterator[Service]:
    """One that answers two hosts only."""
    with Service({**TEST_SETTINGS, "ALLOWED_HOSTS": "api.example.com,*.example.org"}) as one:
        yield one


def request(line: bytes, *lines: bytes, content: bytes = b"") -> bytes:
    return b"\r\n".join([line, *lines, b"Connection: close", b"", content])


# Versions


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET / HTTP/1.1", 200),
        (b"GET / HTTP/1.0", 200),
        *(
            (b"GET / HTTP/" + version, 505)
            for version in (b"2.0", b"0.9", b"1.2", b"3", b"9.9", b"1.10", b"11.1", b"2")
        ),
        (b"PRI * HTTP/2.0", 505),
        (b"OPTIONS * HTTP/2.0", 505),
        *(
            (b"GET / " + name, 400)
            for name in (b"RTSP/1.0", b"RTSP/1.1", b"ICE/1.1", b"http/1.1", b"HTTPS/1.1", b"HTTP/x")
        ),
        (b"OPTIONS * RTSP/1.0", 400),
        (b"SOURCE / ICE/1.0", 400),
        (b"GET / HTTP/1.1x", 400),
        (b"GET / HTTP/", 400),
        (b"GET / ", 400),
        (b"GET /", 400),
        (b"GET /  HTTP/1.1", 400),
    ],
)
@pytest.mark.parametrize("pieces", [1, 1000], ids=["at once", "byte by byte"])
def test_only_http_1_0_and_1_1_are_spoken(service: Service, line: bytes, status: int, pieces: int) -> None:
    sent = request(line, b"Host: x")
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if pieces == 1:
            connection.sendall(sent)
        else:
            try:
                for number in range(len(sent)):
                    connection.send(sent[number : number + 1])
                    time.sleep(0.0005)
            except OSError:  # it has been answered
                pass
        answer = read_all(connection)
    assert int(answer.split()[1]) == status


def test_another_version_is_told_after_requests_on_the_same_connection(service: Service) -> None:
    answers = ask(service, LIVE + b"Host: x\r\n\r\n" + request(b"GET /health/live HTTP/2.0", b"Host: x"))
    assert [answer.status_code for answer in answers] == [200, 505]


# Host

HOSTS = [
    b"x",
    b"api.example.com:8000",
    b"127.0.0.1",
    b"[::1]",
    b"[2001:db8::1]:8000",
    b"x:",
    b"a_b",
    b"xn--bcher-kva.example",
]
NO_HOSTS = [
    b"", b"a b", b"a/b", b"http://x", b"x:port", b"x:1:2", b"x:-1", b"x:65536", b"x:99999999999", b"[::1", b"::1",
    b"[x]", b"[]", b"[::1]x", b"[1:2]", b"u@x", b"u:p@x", b"x?y", b"x#y", b"x,y z", b"%zz", b"a%00b", b"a%0ab",
    b"\xc3\xa9", b"x\\y", b"<x>", b'"x"', b"x" * 300, b":80", b"x, y", b"a\tb",
]  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("space", [b"", b" \t"], ids=["", "white space"])
def test_a_host_with_or_without_a_port_is_answered(service: Service, host: bytes, space: bytes) -> None:
    assert ask_one(service, request(LIVE.strip(), b"Host:" + space + host + space)).status_code == 200


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
@pytest.mark.parametrize("host", NO_HOSTS, ids=repr)
def test_what_is_no_host_is_a_400(service: Service, host: bytes, version: bytes) -> None:
    assert_problem(ask_one(service, request(b"GET /health/live HTTP/" + version, b"Host: " + host)), 400)


@pytest.mark.parametrize("target", [b"/health/live", b"http://x/health/live", b"/nowhere", b"/v1/auth/me"])
@pytest.mark.parametrize(
    ("lines", "version"),
    [
        ([], b"1.1"),
        ([b"Host: x", b"Host: x"], b"1.1"),
        ([b"Host: x", b"host: y"], b"1.1"),
        ([b"Host: x", b"Host: y"], b"1.0"),
        ([b"Host: x", b"Host:"], b"1.1"),
    ],
    ids=["none", "the same twice", "two", "two, of 1.0", "and an empty one"],
)
def test_a_request_has_one_host(service: Service, target: bytes, lines: list[bytes], version: bytes) -> None:
    assert_problem(ask_one(service, request(b"GET %s HTTP/%s" % (target, version), *lines)), 400)


def test_http_1_0_may_do_without_a_host(service: Service) -> None:
    assert ask_one(service, request(b"GET /health/live HTTP/1.0")).status_code == 200


# Targets


@pytest.mark.parametrize(
    ("target", "status", "instance"),
    [
        (b"http://x", 200, ""),
        (b"http://x/", 200, ""),
        (b"HTTP://X:80/", 200, ""),
        (b"https://x:443?y=z", 200, ""),
        (b"http://[::1]/nowhere?y", 404, "/nowhere"),
        (b"http://x//nowhere", 404, "/.//nowhere"),
        *((target, 400, None) for target in [
            b"http://", b"http:///", b"http://u@x/", b"http://u:p@x/", b"http://a b/", b"http://x:port/", b"x:80", b"*",
            b"http://:80/", b"http://x:99999/", b"http://x#y", b"ftp://x/", b"ws://x/", b"x", b"/#y", b"/nowhere#y",
        ]),
    ],
)  # fmt: skip
def test_a_target_is_a_path_or_an_http_url(service: Service, target: bytes, status: int, instance: str | None) -> None:
    answer = ask_one(service, request(b"GET " + target + b" HTTP/1.1", b"Host: x"))
    assert answer.status_code == status
    if status != 200:
        assert_problem(answer, status, instance)


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"/", b"api.example.com", 200),
        (b"/", b"API.example.com.:8000", 200),
        (b"/", b" api.example.com \t", 200),
        (b"/", b"evil.example", 400),
        (b"http://api.example.com/", b"evil.example", 200),
        (b"http://a.example.org", b"api.example.com", 200),
        (b"http://evil.example/", b"api.example.com", 400),
        (b"http://evil.example", b"api.example.com", 400),
        (b"http://example.org/", b"api.example.com", 400),
        (b"http://api.example.com@evil.example/", b"api.example.com", 400),
        (b"http://evil.example/health/live", b"api.example.com", 200),
    ],
)
def test_the_authority_of_an_absolute_target_counts(named: Service, target: bytes, host: bytes, status: int) -> None:
    assert ask_one(named, request(b"GET " + target + b" HTTP/1.1", b"Host: " + host)).status_code == status


@pytest.mark.parametrize("target", [b"*", b"http://x", b"https://x:443"])
def test_options_of_the_server_tells_every_method(service: Service, target: bytes) -> None:
    answer = ask_one(service, request(b"OPTIONS " + target + b" HTTP/1.1", b"Host: x"))
    assert answer.status_code == 204
    methods = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    assert set(answer.headers["allow"].split(", ")) == methods
    assert service.wait_for_log(type="access", path="*", status=204)


def test_options_of_the_server_is_for_allowed_hosts_only(named: Service) -> None:
    assert ask_one(named, request(b"OPTIONS * HTTP/1.1", b"Host: evil.example")).status_code == 400


# Paths: an encoded slash is no separator (RFC 3986, 2.2)

GUARDED = ["/metrics", "/v1/events", "/v1/auth/introspect"]
DISGUISES = {
    "%2f": lambda path: path[0] + path[1:].replace("/", "%2f") + ("%2f" if path.count("/") == 1 else ""),
    "%2F first": lambda path: "/%2F" + path[1:],
    "%2f last": lambda path: path + "%2f",
    "%5c": lambda path: path[0] + path[1:].replace("/", "%5c") + "%5c",
    "%252f": lambda path: path[0] + path[1:].replace("/", "%252f") + "%252f",
    "//": lambda path: "/" + path,
    "// last": lambda path: path + "//",
    "/ last": lambda path: path + "/",
    ";": lambda path: path + ";x=y",
    "; first": lambda path: "/;x" + path,
    "..": lambda path: "/health/.." + path,
    "%2e%2e": lambda path: "/health/%2e%2e" + path,
    ".": lambda path: "/." + path,
    "%00": lambda path: path + "%00",
    "%23": lambda path: path + "%23",
    "%3f": lambda path: path + "%3fx",
    "%20": lambda path: path + "%20",
    "upper case": str.upper,
    "%u002f": lambda path: path[0] + path[1:] + "%u002f",
    "overlong": lambda path: path + "%c0%af",
}


@pytest.mark.parametrize("path", GUARDED)
@pytest.mark.parametrize("disguise", DISGUISES.values(), ids=DISGUISES)
def test_a_path_that_only_looks_like_a_guarded_one_is_a_404(service: Service, path: str, disguise: object) -> None:
    target = disguise(path).encode()  # type: ignore[operator]
    method = b"GET" if path == "/metrics" else b"POST"
    authorized = b"Authorization: Bearer " + TOKEN.encode()
    assert_problem(ask_one(service, request(b"%s %s HTTP/1.1" % (method, target), b"Host: x", authorized)), 404)


@pytest.mark.parametrize("path", ["/metrics", "/%6detrics", "/m%65tric%73", "/metrics?x", "http://x/metrics"])
def test_what_a_proxy_may_guard_by_path_is_guarded_here(service: Service, path: str) -> None:
    asked = f"GET {path} HTTP/1.1".encode()
    assert_problem(ask_one(service, request(asked, b"Host: x")), 401)
    authorized = b"Authorization: Bearer " + TOKEN.encode()
    assert ask_one(service, request(asked, b"Host: x", authorized)).status_code == 200


@pytest.mark.parametrize(
    ("path", "instance"),
    [
        ("/a%2fb", "/a%2Fb"),
        ("/a%252fb", "/a%252fb"),
        ("/100%25", "/100%25"),
        ("/%zz", "/%25zz"),
        ("/%", "/%25"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/%20%22%3c%3e", "/%20%22%3C%3E"),
        ("/%3f%23", "/%3F%23"),
        ("/%e2%80%ae", "/%E2%80%AE"),
        ("/%ff", "/%EF%BF%BD"),
        ("//x", "/.//x"),
        ("///x/y", "/.///x/y"),
        ("/%2fx", "/%2Fx"),
        ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
        ("/;a=b:@!$&'()*+,~", "/;a=b:@!$&'()*+,~"),
        ("/%3ba%2bb", "/;a+b"),
    ],
)
def test_the_instance_of_a_problem_is_a_uri_reference(service: Service, path: str, instance: str) -> None:
    assert_problem(ask_one(service, request(f"GET {path} HTTP/1.1".encode(), b"Host: x")), 404, instance)


# Transfer codings


@pytest.mark.parametrize("line", [b"chunked", b"Chunked", b" chunked ", b", chunked", b",,\tchunked"])
def test_a_body_in_chunks_is_read(service: Service, line: bytes) -> None:
    assert_problem(ask_one(service, POST + b"Transfer-Encoding:" + line + b"\r\n\r\n" + CHUNKS), 422)


UNKNOWN = [
    "gzip, chunked", "gzip,chunked", "identity, chunked", "x, y, chunked", "deflate\r\nTransfer-Encoding: chunked",
    "chunked;a=b, chunked", '"chunked", chunked',
]  # fmt: skip
WRONG = [
    "gzip", "identity", "", "chunked, gzip", "chunked, chunked", "chunked;a=b", '"chunked"', "xchunked", "chunked x",
    "chunked\t", "chunked,", "chunked, identity", "chunked\r\nTransfer-Encoding: chunked", "\r\n chunked",
    "chunked\r\nTransfer-Encoding: identity", "chunked\r\nTransfer-Encoding: ", "chunked\r\nContent-Length: 2",
]  # fmt: skip
NOT_CHUNKED = dict.fromkeys(UNKNOWN, 501) | dict.fromkeys(WRONG, 400)


@pytest.mark.parametrize(("coding", "status"), NOT_CHUNKED.items(), ids=map(repr, NOT_CHUNKED))
@pytest.mark.parametrize("line", [b"POST /v1/auth/login", b"GET /health/live"], ids=["read", "not read"])
def test_another_transfer_coding_is_refused(service: Service, line: bytes, coding: str, status: int) -> None:
    sent = line + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: " + coding.encode()
    assert_problem(ask_one(service, sent + b"\r\n\r\n" + CHUNKS), status)


# HTTP/1.0


def test_chunks_of_http_1_0_are_a_400(service: Service) -> None:
    sent = POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n" + CHUNKS
    assert_problem(ask_one(service, sent), 400)


def test_http_1_0_is_never_told_to_continue(service: Service) -> None:
    content = b'{"login": "a", "password": "b"}'
    sent = POST.replace(b"1.1", b"1.0") + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(content)
    assert_problem(ask_one(service, sent + content), 401)


@pytest.mark.parametrize("said", [b"100-continue", b"100-Continue \t", b", 100-continue"])
def test_http_1_1_is_told_to_continue_however_it_says_that_it_waits(service: Service, said: bytes) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(POST + b"Expect:" + said + b"\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("given", [(), ((b"Transfer-Encoding", b"chunked"),)], ids=["by itself", "as the app says"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_answer_of_unknown_length_ends_with_the_connection_of_http_1_0(
    version: bytes, given: tuple[tuple[bytes, bytes], ...], method: bytes
) -> None:
    async def exchange() -> bytes:
        app = sending(start(*given), body(b"one", more_body=True), body(b"", more_body=True), body(b"two"))
        async with served(app) as (reader, writer), asyncio.timeout(10):
            writer.write(request(method + b" / HTTP/" + version, b"Host: x"))
            return await reader.read()

    answer = asyncio.run(exchange())
    content = answer.partition(b"\r\n\r\n")[2]
    assert (b"transfer-encoding" in fields(answer)) == (version == b"1.1" and (method == b"GET" or bool(given)))
    if method == b"GET":
        assert content == (b"onetwo" if version == b"1.0" else b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
    else:
        assert content == b""


def test_an_answer_of_known_length_is_the_same_for_http_1_0() -> None:
    async def exchange(version: bytes) -> bytes:
        app = sending(start((b"content-length", b"3")), body(b"one"))
        async with served(app) as (reader, writer), asyncio.timeout(10):
            writer.write(request(b"GET / HTTP/" + version, b"Host: x"))
            return await reader.read()

    old, new = (asyncio.run(exchange(version)) for version in (b"1.0", b"1.1"))
    assert (fields(old)[b"content-length"], old[-3:]) == (fields(new)[b"content-length"], new[-3:]) == (b"3", b"one")


# What is refused before it reaches the app


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n%s\r\n",
        b"GET / HTTP/2.0\r\nHost: x\r\n%s\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n%sbad\r\n\r\n",
    ],
)
def test_a_refusal_is_of_the_callers_trace_and_client(service: Service, sent: bytes) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    lines = [
        f"X-Request-ID: r-{len(sent)}",
        "X-Forwarded-For: 192.0.2.7",
        f"traceparent: 00-{trace}-{'1' * 16}-01",
        "A: b",
    ]
    given = "".join(f"{line}\r\n" for line in lines)
    answer = ask_one(service, sent % given.encode())
    assert json.loads(answer.body)["trace_id"] == trace
    assert answer.headers["x-request-id"] == f"r-{len(sent)}"
    assert service.wait_for_log(type="access", request_id=f"r-{len(sent)}")["client"] == "192.0.2.7"


@pytest.mark.parametrize("sent", [b"HEAD / HTTP/1.1\r\n\r\n", b"HEAD / HTTP/2.0\r\nHost: x\r\n\r\n"])
def test_a_refusal_of_head_has_no_body(service: Service, sent: bytes) -> None:
    head, _, content = service.raw(sent, within=4).partition(b"\r\n\r\n")
    assert head.split()[1] in (b"400", b"505")
    assert content == b""
