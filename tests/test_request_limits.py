"""What a request may be and take, and what every answer carries: sizes, times, load, hosts, CORS, HTTP itself."""

import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from tests.conftest import StartService
from tests.service import Service, read_all
from tests.wire import ask, ask_one, assert_problem, connect, read_answers, trace_id

LOGIN = "/v1/auth/login"
HEADERS_MAX = 64 * 1024
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
GET_LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
GET_LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
POST = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    """Bodies up to 1000 bytes, a second for each request, one host, two origins."""
    env = {
        "SYS_ENV": "test",
        "MAX_BODY_BYTES": 1000,
        "REQUEST_TIMEOUT": 1,
        "ALLOWED_HOSTS": "x,127.0.0.1,*.example.com,[::1]",
        "CORS_ORIGINS": "https://app.example.com,http://localhost:3000",
    }
    with Service(env) as service:
        yield service


@pytest.fixture(scope="module")
def plain() -> Iterator[Service]:
    """With the limits as they come."""
    with Service({"SYS_ENV": "test"}) as service:
        yield service


@contextmanager
def locked(service: Service) -> Iterator[None]:
    """Nobody else writes to its database: what has to write waits."""
    path = Path(service.env["DATA_DIR"]) / "berth.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def register_in_background(service: Service, name: str = "slowly") -> tuple[threading.Thread, list[httpx.Response]]:
    answers: list[httpx.Response] = []
    body = {"username": name, "email": f"{name}@example.com", "password": "long enough"}

    def ask_for_it() -> None:
        answers.append(httpx.post(f"{service.url}/v1/auth/register", json=body, timeout=30, trust_env=False))

    thread = threading.Thread(target=ask_for_it)
    thread.start()
    return thread, answers


# Sizes


def test_a_body_of_exactly_the_limit_is_read(small: Service) -> None:
    assert_problem(small.client.post(LOGIN, content=b" " * 1000, headers={"Content-Type": "application/json"}), 400)


def test_a_declared_body_over_the_limit_is_a_413(small: Service) -> None:
    assert_problem(small.client.post(LOGIN, content=b" " * 1001), 413, LOGIN)


def test_a_chunked_body_over_the_limit_is_a_413(small: Service) -> None:
    chunks = iter([b" " * 600, b" " * 600])
    answer = small.client.post(LOGIN, content=chunks, headers={"Content-Type": "application/json"})
    assert_problem(answer, 413, LOGIN)


def test_a_declared_body_over_the_limit_is_refused_before_it_is_sent(small: Service) -> None:
    with connect(small) as connection:
        connection.sendall(POST + b"Content-Length: 100000000\r\n\r\n")
        started = time.monotonic()
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        assert time.monotonic() - started < 0.9


def test_a_chunked_body_is_refused_as_soon_as_it_is_over_the_limit(small: Service) -> None:
    with connect(small) as connection:
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"a" * 1001)
        started = time.monotonic()
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")
        assert time.monotonic() - started < 0.9


def test_a_client_that_sends_all_before_it_reads_still_sees_the_413(plain: Service) -> None:
    body = b"a" * 5_000_000
    with connect(plain) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        time.sleep(0.2)
        [answer] = read_answers(connection)
    assert_problem(answer, 413)
    assert answer.headers["connection"] == "close"


def test_a_client_that_goes_on_sending_is_cut_off_in_the_end(plain: Service) -> None:
    with connect(plain) as connection, pytest.raises(OSError, match=r"."):
        connection.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        until = time.monotonic() + 8
        while time.monotonic() < until:
            connection.sendall(b"10000\r\n" + b"a" * 65536 + b"\r\n")
            time.sleep(0.01)


def header_block(size: int) -> bytes:
    """A request whose headers take this many bytes."""
    start, end = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n", b"\r\n"
    filler = b"".join(b"X-Filler-%04d: %s\r\n" % (n, b"f" * 982) for n in range((size - len(start)) // 1000))
    rest = size - len(start) - len(filler) - len(end) - len(b"X: \r\n")
    return start + filler + b"X: " + b"f" * rest + b"\r\n" + end


def test_headers_of_nearly_64_kib_are_taken(plain: Service) -> None:
    assert ask_one(plain, header_block(HEADERS_MAX - 1000)).status_code == 200


@pytest.mark.parametrize("size", [HEADERS_MAX + 100, 200_000, 1_000_000])
def test_headers_over_64_kib_are_a_431(plain: Service, size: int) -> None:
    answer = ask_one(plain, header_block(size))
    assert_problem(answer, 431)
    assert answer.headers["connection"] == "close"


def test_headers_over_64_kib_in_many_pieces_are_a_431(plain: Service) -> None:
    block = header_block(HEADERS_MAX * 2)
    with connect(plain) as connection:
        for start in range(0, len(block), 4096):
            with suppress(OSError):
                connection.sendall(block[start : start + 4096])
            time.sleep(0.002)
        [answer] = read_answers(connection)
    assert_problem(answer, 431)


def test_headers_over_64_kib_that_never_end_are_a_431(plain: Service) -> None:
    assert_problem(ask_one(plain, b"GET / HTTP/1.1\r\nX: " + b"a" * (HEADERS_MAX + 1)), 431)


def test_one_giant_header_is_a_431(plain: Service) -> None:
    assert_problem(ask_one(plain, b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 300_000 + b"\r\n\r\n"), 431)


def test_an_address_over_64_kib_is_a_431(plain: Service) -> None:
    assert_problem(ask_one(plain, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"), 431)


def test_many_requests_on_one_connection_may_have_more_headers_together(plain: Service) -> None:
    with httpx.Client(base_url=plain.url, trust_env=False) as client:
        for _ in range(5):
            assert client.get("/health/live", headers={"X": "a" * 30_000}).status_code == 200


# Times


def test_headers_sent_by_half_are_a_408(small: Service) -> None:
    started = time.monotonic()
    answer = ask_one(small, b"GET / HTTP/1.1\r\nHost: x\r\n")
    assert_problem(answer, 408)
    assert 0.9 < time.monotonic() - started < 5


def test_headers_that_trickle_are_a_408(small: Service) -> None:
    with connect(small) as connection:
        with suppress(OSError):
            for byte in b"GET /health/live HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100:
                connection.sendall(bytes([byte]))
                time.sleep(0.03)
        [answer] = read_answers(connection)
    assert_problem(answer, 408)


def test_headers_sent_by_half_after_a_good_request_are_a_408(small: Service) -> None:
    good, late = ask(small, GET_LIVE + b"GET / HTTP/1.1\r\nHost")
    assert good.status_code == 200
    assert_problem(late, 408)


@pytest.mark.parametrize("framing", [b"Content-Length: 100\r\n\r\n{", b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"])
def test_a_body_sent_by_half_is_a_408(small: Service, framing: bytes) -> None:
    started = time.monotonic()
    answer = ask_one(small, POST + framing)
    assert_problem(answer, 408, LOGIN)
    assert 0.9 < time.monotonic() - started < 5


def test_a_new_connection_that_stays_silent_is_closed_without_a_word(small: Service) -> None:
    started = time.monotonic()
    assert small.raw(b"") == b""
    assert 0.9 < time.monotonic() - started < 5


def test_an_answer_to_a_request_that_nobody_finished_sending_is_no_error(small: Service) -> None:
    answer = ask_one(small, b"POST /v1/auth/logout HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert_problem(answer, 401, "/v1/auth/logout")
    small.wait_for_log(type="access", trace_id=trace_id(answer), status=401)
    assert not small.log(severity="ERROR")


def test_an_answer_that_takes_too_long_is_a_504(start_service: StartService) -> None:
    service = start_service(REQUEST_TIMEOUT=1, MYSQL_QUERY_TIMEOUT=10)
    with locked(service):
        started = time.monotonic()
        thread, answers = register_in_background(service)
        thread.join()
        took = time.monotonic() - started
    assert_problem(answers[0], 504, "/v1/auth/register")
    assert 0.9 < took < 3


# Load


def test_a_request_too_many_is_a_503_with_retry_after_while_health_answers(start_service: StartService) -> None:
    service = start_service(MAX_CONCURRENCY=1)
    with locked(service):
        thread, answers = register_in_background(service)
        time.sleep(1)
        refused = service.client.get("/")
        health = [service.client.get(f"/health/{name}").status_code for name in ("live", "startup", "ready")]
    thread.join()
    assert_problem(refused, 503, "/")
    assert int(refused.headers["retry-after"]) >= 1
    assert health == [200, 200, 200]
    assert answers[0].status_code == 201
    assert service.client.get("/").status_code == 200


# Hosts


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:99", "a.example.com", "A.B.EXAMPLE.COM:443", "[::1]:8000"])
def test_a_host_that_is_allowed_is_answered(small: Service, host: str) -> None:
    assert small.client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.com", "example.com", "evilexample.com", "", "127.0.0.1.evil.com", "[::2]"])
def test_a_host_that_is_not_allowed_is_a_400(small: Service, host: str) -> None:
    assert_problem(small.client.get("/", headers={"Host": host}), 400, "/")


def test_health_answers_under_any_host(small: Service) -> None:
    assert small.client.get("/health/ready", headers={"Host": "10.1.2.3"}).status_code == 200


# HTTP itself


@pytest.mark.parametrize(
    "sent",
    [
        b"hello\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: a\0b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n: nameless\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX : space\r\n\r\n",
        b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        POST + b"Content-Length: -1\r\n\r\n",
        POST + b"Content-Length: 1e3\r\n\r\n",
        POST + b"Content-Length: +1\r\n\r\n{",
        POST + b"Content-Length: 1, 1\r\n\r\n{",
        POST + b"Content-Length:\r\n\r\n",
        POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\n",
        POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n{}",
    ],
    ids=lambda sent: repr(sent.removeprefix(POST)[:40]),
)
def test_what_is_not_http_is_a_400_with_a_trace_id_and_an_access_line(plain: Service, sent: bytes) -> None:
    answer = ask_one(plain, sent)
    assert_problem(answer, 400)
    assert answer.headers["connection"] == "close"
    assert plain.wait_for_log(type="access", trace_id=trace_id(answer))["status"] == 400


def test_pipelined_requests_are_answered_in_their_order(plain: Service) -> None:
    paths = [f"/nowhere/{n}" for n in range(20)]
    sent = b"".join(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in paths) + GET_LAST
    *answers, last = ask(plain, sent)
    assert [answer.json()["instance"] for answer in answers] == paths
    assert last.status_code == 200


def test_good_requests_before_a_bad_one_are_answered_first(plain: Service) -> None:
    *good, bad = ask(plain, GET_LIVE * 3 + b"what?\r\n\r\n")
    assert [answer.status_code for answer in good] == [200, 200, 200]
    assert_problem(bad, 400)


def test_a_slow_request_before_a_bad_one_is_answered_first(plain: Service) -> None:
    body = b'{"login": "nobody", "password": "wrong"}'
    sent = POST + b"Content-Length: %d\r\n\r\n" % len(body) + body
    slow, bad = ask(plain, sent + b"GET / HTTP/1.1\r\nno colon\r\n\r\n")
    assert_problem(slow, 401)
    assert_problem(bad, 400)


def test_a_request_pipelined_after_an_early_answer_is_not_answered_with_the_rest_of_a_body(plain: Service) -> None:
    sent = POST + b"Content-Length: 2\r\n\r\n[]" + GET_LAST
    assert [answer.status_code for answer in ask(plain, sent)] == [422, 200]


@pytest.mark.parametrize("chunk", [b"zz\r\n{}\r\n0\r\n\r\n", b"2\r\n{}xx\r\n", b"-2\r\n{}\r\n", b"f" * 17 + b"\r\n{}"])
def test_a_broken_chunk_is_a_400(plain: Service, chunk: bytes) -> None:
    answer = ask_one(plain, POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunk)
    assert_problem(answer, 400, LOGIN)
    assert answer.headers["connection"] == "close"


def test_a_client_that_asks_is_told_to_continue(plain: Service) -> None:
    with connect(plain) as connection:
        connection.sendall(POST + b"Content-Length: 2\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n")
        assert connection.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        [answer] = read_answers(connection)
    assert_problem(answer, 422, LOGIN)


def test_a_client_that_asks_to_send_too_much_is_told_not_to(small: Service) -> None:
    answer = ask_one(small, POST + b"Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n")
    assert_problem(answer, 413, LOGIN)


def test_a_client_that_asks_and_does_not_wait_still_sees_the_413(plain: Service) -> None:
    body = b"a" * 5_000_000
    with connect(plain) as connection:
        connection.sendall(POST + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(body) + body)
        time.sleep(0.2)
        [answer] = read_answers(connection)
    assert_problem(answer, 413)


@pytest.mark.parametrize("upgrade", ["websocket", "h2c", "TLS/1.0"])
def test_an_upgrade_is_answered_as_plain_http(plain: Service, upgrade: str) -> None:
    sent = f"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: {upgrade}\r\n"
    sent += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    assert [answer.status_code for answer in ask(plain, sent.encode() + GET_LAST)] == [200, 200]


def test_an_upgrade_with_a_body_is_answered_as_plain_http(plain: Service) -> None:
    sent = POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}" + GET_LAST
    assert [answer.status_code for answer in ask(plain, sent)] == [422, 200]


def test_http_1_0_is_answered_and_closed(plain: Service) -> None:
    assert ask_one(plain, b"GET / HTTP/1.0\r\n\r\n").status_code == 200


def test_a_client_that_closes_its_side_first_still_gets_its_answer(plain: Service) -> None:
    with connect(plain) as connection:
        connection.sendall(GET_LAST)
        connection.shutdown(socket.SHUT_WR)
        assert [answer.status_code for answer in read_answers(connection)] == [200]


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error(plain: Service) -> None:
    with connect(plain) as connection:
        connection.sendall(POST + b"X-Request-ID: left-early\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.1)
    assert plain.wait_for_log(type="access", request_id="left-early")["status"] == 499
    assert not plain.log(severity="ERROR")


# CORS


def preflight(service: Service, origin: str, method: str = "PATCH") -> httpx.Response:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    return service.client.options("/v1/auth/me", headers=headers)


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_a_preflight_of_an_allowed_origin_is_allowed(small: Service, method: str) -> None:
    answer = preflight(small, "https://app.example.com", method)
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert method in answer.headers["access-control-allow-methods"]
    assert "authorization" in answer.headers["access-control-allow-headers"].lower()


@pytest.mark.parametrize("origin", ["https://evil.com", "null", "https://app.example.com.evil.com"])
def test_a_preflight_of_another_origin_is_a_400_that_allows_nothing(small: Service, origin: str) -> None:
    answer = preflight(small, origin)
    assert_problem(answer, 400, "/v1/auth/me")
    assert "access-control-allow-origin" not in answer.headers


def test_a_preflight_of_another_method_is_a_400(small: Service) -> None:
    assert_problem(preflight(small, "https://app.example.com", "PROPFIND"), 400)


def test_a_page_of_an_allowed_origin_can_read_an_error(small: Service) -> None:
    answer = small.client.get("/v1/auth/me", headers={"Origin": "https://app.example.com"})
    assert_problem(answer, 401)
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert "origin" in answer.headers["vary"].lower()
    exposed = answer.headers["access-control-expose-headers"].lower()
    assert all(name in exposed for name in ("x-request-id", "traceparent", "retry-after"))


def test_a_page_of_an_allowed_origin_can_read_a_413(small: Service) -> None:
    answer = small.client.post(LOGIN, content=b" " * 2000, headers={"Origin": "http://localhost:3000"})
    assert_problem(answer, 413)
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"


def test_another_origin_gets_no_cors_headers(small: Service) -> None:
    answer = small.client.get("/v1/auth/me", headers={"Origin": "https://evil.com"})
    assert "access-control-allow-origin" not in answer.headers


def test_without_cors_origins_a_preflight_is_a_405(plain: Service) -> None:
    assert_problem(preflight(plain, "https://app.example.com"), 405)


# Headers of every answer


@pytest.mark.parametrize(
    "sent", [GET_LAST, b"GET /nowhere HTTP/1.0\r\n\r\n", b"?\r\n\r\n", b"GET / HTTP/1.1\r\nX: " + b"a" * 70_000]
)
def test_every_answer_has_security_headers_and_names_no_server(plain: Service, sent: bytes) -> None:
    headers = ask_one(plain, sent).headers
    assert "server" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-request-id"]


@pytest.mark.parametrize("request_id", ["a", "req-1.2_3:4/5+6=", "x" * 128])
def test_a_request_id_that_is_well_formed_comes_back(plain: Service, request_id: str) -> None:
    answer = plain.client.get("/health/live", headers={"X-Request-ID": request_id})
    assert answer.headers["x-request-id"] == request_id


@pytest.mark.parametrize("request_id", ["", "a b", "x" * 129, "<script>", "a;b", "\u00e9", "%0d%0a"])
def test_a_request_id_that_is_not_well_formed_is_replaced(plain: Service, request_id: str) -> None:
    answer = plain.client.get("/health/live", headers=[(b"X-Request-ID", request_id.encode())])
    assert UUID(answer.headers["x-request-id"]).version == 7


@pytest.mark.parametrize(
    ("headers", "flags"),
    [
        ({"traceparent": f"00-{TRACE}-{PARENT}-01"}, "01"),
        ({"traceparent": f"00-{TRACE}-{PARENT}-00"}, "00"),
        ({"traceparent": f"cc-{TRACE}-{PARENT}-01-what-the-future-brings"}, "01"),
        ({"X-Cloud-Trace-Context": f"{TRACE}/123;o=1"}, "01"),
        ({"X-Cloud-Trace-Context": f"{TRACE}/123;o=0"}, "00"),
        ({"X-Cloud-Trace-Context": TRACE}, "00"),
        ({"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Cloud-Trace-Context": f"{'a' * 32}/1;o=0"}, "01"),
        ({"traceparent": "broken", "X-Cloud-Trace-Context": f"{TRACE}/1;o=1"}, "01"),
    ],
)
def test_a_trace_goes_on_with_a_span_of_our_own(plain: Service, headers: dict[str, str], flags: str) -> None:
    version, trace, span, answered_flags = (
        plain.client.get("/health/live", headers=headers).headers["traceparent"].split("-")
    )
    assert (version, trace, answered_flags) == ("00", TRACE, flags)
    assert span not in (PARENT, "0" * 16)


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
        f"00-{TRACE}-{PARENT}",
        f"00-{TRACE[:-1]}-{PARENT}-01",
        "",
    ],
)
def test_a_trace_that_is_not_well_formed_is_replaced(plain: Service, traceparent: str) -> None:
    answer = plain.client.get("/health/live", headers={"traceparent": traceparent})
    assert trace_id(answer) not in (TRACE, "0" * 32)


def test_a_cloud_trace_that_is_not_well_formed_is_replaced(plain: Service) -> None:
    answer = plain.client.get("/health/live", headers={"X-Cloud-Trace-Context": f"{'0' * 32}/1;o=1"})
    assert trace_id(answer) != "0" * 32


def test_a_client_that_never_reads_does_not_hold_up_others(plain: Service) -> None:
    with connect(plain) as deaf:
        deaf.setblocking(False)
        with suppress(OSError):
            while True:
                deaf.send(GET_LIVE * 100)
        assert plain.client.get("/health/live", timeout=5).status_code == 200
        deaf.setblocking(True)
        deaf.settimeout(1)
        assert read_all(deaf).startswith(b"HTTP/1.1 200 ")
