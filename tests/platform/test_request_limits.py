"""Limits on size, time, host and load; what isn't HTTP; the headers of every answer."""

import json
import select
import socket
import sqlite3
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
import pytest

from tests.conftest import TEST_SETTINGS, StartService
from tests.faults.load import QuickService
from tests.support.service import Service, read_all

LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
LOGIN = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
ENDED = b"Connection: close\r\n\r\n"


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def assert_problem(answer: bytes, status: int) -> None:
    head, _, body = answer.partition(b"\r\n\r\n")
    problem = json.loads(body)
    assert (status_of(answer), problem["status"]) == (status, status)
    assert b"content-type: application/problem+json" in head.lower()
    assert problem["trace_id"].encode() in head
    assert b"connection: close" in head.lower()


def conversation(service: Service, *parts: bytes, pause: float = 0.05) -> bytes:
    """Sends the parts one after the other, then reads until the service closes."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        for number, part in enumerate(parts):
            time.sleep(pause if number else 0)
            connection.sendall(part)
        return read_all(connection)


def test_a_body_declared_too_large_is_a_413_before_it_is_read(start_service: StartService) -> None:
    service = start_service(MAX_BODY_BYTES=1000)
    assert_problem(conversation(service, LOGIN + b"Content-Length: 1001\r\n\r\n"), 413)


def test_a_chunked_body_that_grows_too_large_is_a_413_and_read_no_further(start_service: StartService) -> None:
    service = start_service(MAX_BODY_BYTES=1000)
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    assert_problem(conversation(service, LOGIN + b"Transfer-Encoding: chunked\r\n\r\n" + chunk), 413)


def test_a_client_that_sends_all_before_it_reads_still_gets_its_413(service: Service) -> None:
    answer = service.client.post("/v1/auth/login", content=b"x" * 20_000_000)
    assert answer.status_code == 413


def test_a_body_as_large_as_allowed_is_read(start_service: StartService) -> None:
    service = start_service(MAX_BODY_BYTES=1000)
    body = b'{"login": "a", "password": "b"}'.ljust(1000)
    answer = service.client.post("/v1/auth/login", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 401


def test_headers_over_32_kib_are_a_431(service: Service) -> None:
    many = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 1000) for n in range(35))
    assert_problem(conversation(service, LIVE + many + ENDED), 431)


def test_one_header_over_32_kib_sent_in_pieces_is_a_431(service: Service) -> None:
    assert_problem(conversation(service, LIVE + b"X-Large: ", *[b"x" * 16_384] * 3), 431)


def test_a_path_over_32_kib_is_a_431(service: Service) -> None:
    assert_problem(conversation(service, b"GET /" + b"x" * 35_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"), 431)


@pytest.mark.parametrize("first", [1, 30_000, 35_000], ids="{} bytes with the request before".format)
def test_headers_over_32_kib_are_a_431_after_another_request_too(service: Service, first: int) -> None:
    large = LIVE + b"X-Large: " + b"x" * 35_000 + b"\r\n" + ENDED
    answers = conversation(service, LIVE + b"\r\n" + large[:first], large[first:])
    one, other = answers.split(b"HTTP/1.1 ")[1:]
    assert one.startswith(b"200")
    assert_problem(b"HTTP/1.1 " + other, 431)


def test_a_large_body_before_it_leaves_a_request_its_32_kib_of_headers(service: Service) -> None:
    first = LOGIN + b"Content-Length: 100000\r\n\r\n" + b" " * 100_000
    second = LIVE + b"X-Large: " + b"x" * 32_000 + b"\r\n" + ENDED
    answers = conversation(service, first + second)
    assert [int(answer[:3]) for answer in answers.split(b"HTTP/1.1 ")[1:]] == [400, 200]


def test_headers_under_32_kib_are_read(service: Service) -> None:
    assert status_of(service.raw(LIVE + b"X-Large: " + b"x" * 32_000 + b"\r\n" + ENDED)) == 200


@pytest.mark.parametrize(
    ("fields", "ended", "status"),
    [
        (b"a:\r\n" * 98, True, 200),
        (b"a:\r\n" * 99, True, 431),
        (b"a:\r\n" * 101, False, 431),
        (b"ab:\r\n" * 12_900, False, 431),
        (b"X-Large: " + b"x" * 33_000, False, 431),
    ],
    ids=["100 fields", "101 fields", "101 fields, unfinished", "12,900 fields, unfinished", "32 KiB, unfinished"],
)
@pytest.mark.parametrize("before", [b"", LIVE + b"\r\n"], ids=["first", "after another"])
def test_headers_may_have_100_fields_whether_finished_or_not(
    service: Service, fields: bytes, ended: bool, status: int, before: bytes
) -> None:
    answer = service.raw(before + LIVE + fields + (ENDED if ended else b""))
    assert status_of(answer[answer.rfind(b"HTTP/1.1 ") :]) == status


def test_headers_sent_too_slowly_are_a_408(start_service: StartService) -> None:
    assert_problem(conversation(start_service(REQUEST_TIMEOUT=0.5), LIVE), 408)


def test_headers_sent_too_slowly_are_a_408_after_another_request_too(start_service: StartService) -> None:
    answers = conversation(start_service(REQUEST_TIMEOUT=0.5), LIVE + b"\r\n", LIVE)
    one, other = answers.split(b"HTTP/1.1 ")[1:]
    assert one.startswith(b"200")
    assert_problem(b"HTTP/1.1 " + other, 408)


def test_a_body_sent_too_slowly_is_a_408(start_service: StartService) -> None:
    assert_problem(conversation(start_service(REQUEST_TIMEOUT=0.5), LOGIN + b'Content-Length: 50\r\n\r\n{"login"'), 408)


def test_a_body_has_a_pace_and_not_only_an_end(start_service: StartService) -> None:
    service = start_service(REQUEST_TIMEOUT=6)
    head = LOGIN + b"Content-Length: 1500\r\n\r\n"
    started = time.monotonic()
    with socket.create_connection(("127.0.0.1", service.port), timeout=0.2) as dribbling:
        dribbling.sendall(head)
        answer = b""
        while not answer:
            dribbling.sendall(b" ")
            with suppress(TimeoutError):
                answer = read_all(dribbling)
    assert_problem(answer, 408)
    assert time.monotonic() - started < 4
    slow = [b'{"login": "nobody", "password": "whatever"}', *[b" " * 91] * 15, b" " * 92]
    assert status_of(conversation(service, head + slow[0], *slow[1:], pause=0.1)) == 401


def test_a_request_takes_a_slot_when_its_body_has_arrived(start_service: StartService) -> None:
    service = start_service(MAX_CONCURRENCY=2)
    body = b'{"login": "nobody", "password": "whatever"}'
    with ExitStack() as stack:
        dribbling = [
            stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=10)) for _ in range(10)
        ]
        for connection in dribbling:
            connection.sendall(LOGIN + b"Connection: close\r\nContent-Length: %d\r\n\r\n{" % len(body))
        time.sleep(0.2)
        assert [httpx.get(f"{service.url}/").status_code for _ in range(3)] == [200] * 3
        for connection in dribbling:
            connection.sendall(body[1:])
        statuses = [status_of(read_all(connection)) for connection in dribbling]
    assert set(statuses) == {401, 503}
    assert httpx.get(f"{service.url}/").status_code == 200


def test_large_bodies_that_all_come_at_once_are_a_503_and_small_ones_are_read(start_service: StartService) -> None:
    service = start_service()
    body = b'{"login": "nobody", "password": "whatever"}'
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_connection(("127.0.0.1", service.port), 10)) for _ in range(24)]
        for connection in held:  # 18 of them fit in MAX_BODIES
            connection.sendall(LOGIN + b"Content-Length: 1000000\r\n\r\n" + b" " * 900_000)
        refused: list[socket.socket] = []
        while len(refused) < 6:
            refused, _, _ = select.select(held, [], [], 10)
        large = LOGIN + b"Connection: close\r\nContent-Length: 1000000\r\n\r\n" + body.ljust(1_000_000)
        assert status_of(service.raw(large)) == 503
        assert status_of(conversation(service, LOGIN + b"Content-Length: %d\r\n" % len(body) + ENDED, body)) == 401
    deadline = time.monotonic() + 10
    while status_of(service.raw(large)) != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_connection_that_says_nothing_is_closed(start_service: StartService) -> None:
    assert conversation(start_service(REQUEST_TIMEOUT=0.5)) == b""


def test_a_kept_alive_connection_is_not_closed_after_the_time_of_a_request(start_service: StartService) -> None:
    service = start_service(REQUEST_TIMEOUT=0.5)
    answers = conversation(service, LIVE + b"\r\n", LIVE + ENDED, pause=0.8)
    assert answers.count(b"HTTP/1.1 200") == 2


def test_an_answer_that_takes_too_long_is_a_504() -> None:
    with QuickService({**TEST_SETTINGS, "REQUEST_TIMEOUT": 1}) as service:
        account = service.sign_up()
        lock = sqlite3.connect(Path(service.env["DATA_DIR"]) / "berth.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        answer = service.client.post("/v1/auth/refresh", json={"refresh_token": account.refresh_token})
        lock.close()
    assert answer.status_code == 504
    assert answer.headers["content-type"] == "application/problem+json"


def test_over_max_concurrency_is_a_503_with_retry_after_but_not_for_health(start_service: StartService) -> None:
    service = start_service(MAX_CONCURRENCY=1)
    account = service.sign_up()
    lock = sqlite3.connect(Path(service.env["DATA_DIR"]) / "berth.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    body = json.dumps({"refresh_token": account.refresh_token}).encode()
    head = b"POST /v1/auth/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as slow:
        slow.sendall(head % len(body) + ENDED + body)
        refused = httpx.get(f"{service.url}/")  # on a later connection: the other is read by then
        health = httpx.get(f"{service.url}/health/ready")
        lock.execute("ROLLBACK")
        assert status_of(read_all(slow)) == 200
    assert (refused.status_code, int(refused.headers["retry-after"]) >= 1) == (503, True)
    assert health.status_code == 200
    assert service.client.get("/").status_code == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
    ids=lambda sent: repr(sent[:24]),
)
def test_what_is_not_http_is_a_400_and_an_access_line(service: Service, sent: bytes) -> None:
    answer = service.raw(sent)
    assert_problem(answer, 400)
    trace_id = json.loads(answer.partition(b"\r\n\r\n")[2])["trace_id"]
    assert service.wait_for_log(type="access", trace_id=trace_id)["status"] == 400


@pytest.mark.parametrize(("size", "count", "status"), [(1, 4000, 422), (1, 5000, 400), (17, 5000, 422)])
def test_a_body_in_thousands_of_tiny_chunks_is_a_400(service: Service, size: int, count: int, status: int) -> None:
    chunks = b"2\r\n{}\r\n" + (b"%x\r\n%s\r\n" % (size, b" " * size)) * count + b"0\r\n\r\n"
    assert_problem(
        conversation(service, LOGIN + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks), status
    )


def test_a_broken_chunk_is_a_400(service: Service) -> None:
    assert_problem(conversation(service, LOGIN + b"Transfer-Encoding: chunked\r\n\r\n", b"zz\r\nx\r\n"), 400)


def test_pipelined_requests_are_answered_in_order_a_bad_one_last(service: Service) -> None:
    slow = b'{"login": "nobody", "password": "some password"}'
    login = LOGIN + b"Content-Length: %d\r\n\r\n%s" % (len(slow), slow)
    answers = service.raw(login + LIVE + b"\r\n" + b"nonsense\r\n\r\n")
    assert [status_of(b"HTTP/1.1 " + part) for part in answers.split(b"HTTP/1.1 ")[1:]] == [401, 200, 400]


def test_a_client_that_awaits_100_continue_gets_it_or_the_final_answer(start_service: StartService) -> None:
    service = start_service(MAX_BODY_BYTES=1000)
    expect = LOGIN + b"Expect: 100-continue\r\nConnection: close\r\n"
    body = b'{"login": "a", "password": "b"}'
    taken = conversation(service, expect + b"Content-Length: %d\r\n\r\n" % len(body), body)
    assert taken.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 401")
    assert_problem(conversation(service, expect + b"Content-Length: 1001\r\n\r\n"), 413)


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
def test_an_upgrade_is_declined_by_a_plain_answer(service: Service, protocol: bytes) -> None:
    upgrade = b"Connection: Upgrade, close\r\nUpgrade: " + protocol + b"\r\n\r\n"
    assert status_of(service.raw(LIVE + upgrade)) == 200


def test_only_allowed_hosts_are_answered_but_probes_always(start_service: StartService) -> None:
    service = start_service(ALLOWED_HOSTS="api.example.com,*.example.org,[::1]")
    allowed = ["api.example.com", "API.example.com:8000", "a.example.org", "[::1]", "[::1]:8000"]
    refused = ["example.org", "evil.example", "127.0.0.1", "::1", "[::2]"]
    statuses = [service.client.get("/", headers={"Host": host}).status_code for host in allowed + refused]
    assert statuses == [200] * 5 + [400] * 5
    assert service.client.get("/health/live", headers={"Host": "10.0.0.7"}).status_code == 200


def test_pages_of_cors_origins_may_call_and_read_errors(start_service: StartService) -> None:
    service = start_service(CORS_ORIGINS="https://app.example")
    asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    preflight = service.client.options("/v1/auth/login", headers=asked)
    answer = service.client.post("/v1/auth/login", headers={"Origin": "https://app.example"})
    assert (preflight.status_code, answer.status_code) == (200, 422)
    for one in (preflight, answer):
        assert one.headers["access-control-allow-origin"] == "https://app.example"


def test_a_preflight_of_another_origin_is_refused_as_a_problem(start_service: StartService) -> None:
    service = start_service(CORS_ORIGINS="https://app.example")
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    answer = service.client.options("/v1/auth/login", headers=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/problem+json")


@pytest.mark.parametrize("path", ["/", "/nothing", "/v1/auth/me"])
def test_every_answer_has_its_ids_and_security_headers_and_no_server(service: Service, path: str) -> None:
    headers = service.client.get(path).headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"] == "no-store"
    policy = {"default-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"}
    assert set(headers["content-security-policy"].split("; ")) == policy
    assert headers["referrer-policy"] == "no-referrer"
    assert len(headers["traceparent"]) == 55
    assert headers["x-request-id"]
    assert "server" not in headers


def test_a_well_formed_request_id_is_kept_and_any_other_replaced(service: Service) -> None:
    kept = service.client.get("/", headers={"X-Request-ID": "order-7.1"}).headers["x-request-id"]
    replaced = service.client.get("/", headers={"X-Request-ID": "a b\x7f" + "c" * 300}).headers["x-request-id"]
    assert kept == "order-7.1"
    assert " " not in replaced


TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("headers", "flags"),
    [
        ({"traceparent": f"00-{TRACE}-{SPAN}-01"}, "01"),
        ({"traceparent": f"cc-{TRACE}-{SPAN}-00-later"}, "00"),
        ({"X-Cloud-Trace-Context": f"{TRACE}/1;o=1"}, "01"),
        ({"X-Cloud-Trace-Context": TRACE}, "00"),
        ({"traceparent": f"00-{TRACE}-{SPAN}-01", "X-Cloud-Trace-Context": f"{'1' * 32}/1;o=0"}, "01"),
    ],
)
def test_a_trace_goes_on_in_a_span_of_its_own(service: Service, headers: dict[str, str], flags: str) -> None:
    version, trace, span, sampled = service.client.get("/", headers=headers).headers["traceparent"].split("-")
    assert (version, trace, sampled) == ("00", TRACE, flags)
    assert span != SPAN


@pytest.mark.parametrize(
    "traceparent",
    [
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        "nonsense",
    ],
)
def test_a_malformed_traceparent_starts_a_new_trace(service: Service, traceparent: str) -> None:
    answered = service.client.get("/", headers={"traceparent": traceparent}).headers["traceparent"].split("-")[1]
    assert answered not in (TRACE, TRACE.upper(), "0" * 32)


def test_forwarded_addresses_are_believed_only_from_trusted_proxies(
    start_service: StartService, tmp_path: Path
) -> None:
    """Also when a file names them, which uvicorn, that knows the variable itself, wouldn't read."""
    (tmp_path / "env").write_text("FORWARDED_ALLOW_IPS=10.0.0.1\n")
    for service, client in (
        (start_service(FORWARDED_ALLOW_IPS="127.0.0.1"), "192.0.2.7"),
        (start_service(FORWARDED_ALLOW_IPS="10.0.0.1"), "127.0.0.1"),
        (start_service(ENV_FILE=tmp_path / "env"), "127.0.0.1"),
    ):
        service.client.get("/nothing", headers={"X-Forwarded-For": "192.0.2.7"})
        assert service.wait_for_log(type="access", status=404)["client"] == client


def test_a_burst_of_slow_requests_leaves_health_answering(start_service: StartService) -> None:
    service = start_service()
    account = service.sign_up()
    body = {"login": account.username, "password": account.password}
    threads = [
        threading.Thread(
            target=httpx.post, args=(f"{service.url}/v1/auth/login",), kwargs={"json": body, "timeout": 30}
        )
        for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    assert service.client.get("/health/ready", timeout=2).status_code == 200
    for thread in threads:
        thread.join()


def test_the_body_of_a_declined_upgrade_is_read(service: Service) -> None:
    upgrade = b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n"
    assert_problem(conversation(service, LOGIN + upgrade, b"{}"), 422)


def test_a_client_that_awaits_100_continue_and_sends_anyway_still_gets_its_413(service: Service) -> None:
    sent = LOGIN + b"Expect: 100-continue\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 5_000_000
    assert_problem(conversation(service, sent), 413)


def test_an_answer_before_the_end_of_a_body_that_never_comes_is_no_error(start_service: StartService) -> None:
    service = start_service(REQUEST_TIMEOUT=0.5)
    sent = b"POST /v1/auth/logout HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    assert_problem(conversation(service, sent), 401)
    service.wait_for_log(type="access", path="/v1/auth/logout", status=401)
    assert not service.log(severity="ERROR")


def test_the_query_of_what_is_not_http_is_not_logged(service: Service) -> None:
    assert_problem(conversation(service, b"GET /reset?code=Sesame-1234 HTTP/1.1\r\nno colon\r\n\r\n"), 400)
    service.wait_for_log(type="access", path="/reset", status=400)
    assert "Sesame-1234" not in str(service.lines)
