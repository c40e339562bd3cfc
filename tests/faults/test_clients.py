"""Clients that leave, dawdle, send too much or don't read: none costs another anything."""

import asyncio
import json
import re
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import TEST_SETTINGS, StartService, backend_settings
from tests.faults.crowds import HOSTILE, come_in_crowds, many_files
from tests.faults.hang_ups import hang_up
from tests.faults.load import QuickService
from tests.support.servers import wait_until
from tests.support.service import Account, Service
from tests.support.wire import ask, ask_one, assert_problem, connect, read_answers

LOGIN = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
CHUNKED = LOGIN + b"Transfer-Encoding: chunked\r\n\r\n"


def peak_mib(service: Service) -> float:
    status = Path(f"/proc/{service.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def flood(connection: socket.socket, data: bytes, times: int) -> int:
    """Sends until it can't any more; how often it could."""
    connection.settimeout(0.5)
    for number in range(times):
        try:
            connection.sendall(data)
        except OSError:
            return number
    return times


def no_errors(service: Service) -> bool:
    return not [line for line in service.lines if line["severity"] in ("ERROR", "CRITICAL")]


def test_clients_that_hang_up_leave_nothing_behind_and_nobody_gets_anothers_answer(
    backend: str, request: pytest.FixtureRequest
) -> None:
    with QuickService({**TEST_SETTINGS, **backend_settings(backend, request), "MYSQL_POOL_MAX_SIZE": "5"}) as service:
        open_before = len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
        result = asyncio.run(hang_up(service, 200))
        time.sleep(0.5)
        assert (result.left, result.wrong) == (200, [])
        assert result.checked > 0
        assert len(list(Path(f"/proc/{service.pid}/fd").iterdir())) < open_before + 30
        assert service.sign_up().id
        assert no_errors(service)


def test_a_client_that_leaves_within_its_body_is_a_499_and_no_error(start_service: StartService) -> None:
    service = start_service()
    with connect(service) as connection:
        connection.sendall(LOGIN + b'Content-Length: 100\r\n\r\n{"login"')
        time.sleep(0.1)
    assert service.wait_for_log(type="access", status=499)["route"] == "/v1/auth/login"
    assert no_errors(service)


def test_a_client_that_closes_its_side_still_gets_all_its_answers(service: Service, account: Account) -> None:
    body = json.dumps({"login": account.username, "password": account.password}).encode()
    slow = LOGIN + b"Content-Length: %d\r\n\r\n" % len(body) + body
    with connect(service) as connection:
        connection.sendall(slow + LIVE + b"\r\n")
        connection.shutdown(socket.SHUT_WR)
        assert [answer.status_code for answer in read_answers(connection)] == [200, 200]
        assert connection.recv(1) == b"", "it is still open"


def unread(service: Service, client_port: int) -> int | None:
    """Bytes in the kernel that the service has sent and the client hasn't taken; None when the connection is gone."""
    ends = f"0100007F:{service.port:04X} 0100007F:{client_port:04X} 01"
    lines = Path(f"/proc/{service.pid}/net/tcp").read_text().splitlines()
    return next((int(line.split()[4].split(":")[0], 16) for line in lines if ends in line), None)


def fill(service: Service, connection: socket.socket, port: int) -> None:
    """Asks for long answers until the kernel takes no more of them."""
    seen: list[int | None] = []
    while len(seen) < 4 or not seen[-1] or len(set(seen[-4:])) > 1:
        seen.append(unread(service, port))
        connection.sendall(b"GET /" + b"x" * 8000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.02)


def check_is_cut_off(service: Service, port: int) -> None:
    deadline = time.monotonic() + 8
    while unread(service, port) is not None:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert no_errors(service)


def connect_narrow(service: Service) -> socket.socket:
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect(("127.0.0.1", service.port))
    return connection


def test_answers_that_nobody_reads_do_not_keep_a_connection_open(start_service: StartService) -> None:
    service = start_service(REQUEST_TIMEOUT=1)
    with connect_narrow(service) as connection:
        port: int = connection.getsockname()[1]
        with suppress(OSError):  # on a busy machine it may be cut off even earlier
            fill(service, connection, port)
            connection.sendall(LIVE + b"Connection: close\r\n\r\n")
        check_is_cut_off(service, port)


def no_hashes(service: Service) -> bool:
    """None is at work, with its 32 MiB, and none waits."""
    return len(re.findall(r"_password_hashes\{.*\} 0(?:\.0)?$", service.client.get("/metrics").text, re.MULTILINE)) == 2


def test_a_thousand_hostile_connections_keep_the_memory_low_and_hold_nobody_up(start_service: StartService) -> None:
    with many_files():
        service = start_service(LOG_LEVEL="WARNING")
        longest = {kind: come_in_crowds(service, sent) for kind, sent in HOSTILE.items()}
        peak = peak_mib(service)
        wait_until(lambda: no_hashes(service), "the last of the hashes that they asked for", within=60)
        come_in_crowds(service, HOSTILE["98 large fields, unfinished"])  # takes what the others have given back
    assert {kind: seconds for kind, seconds in longest.items() if seconds > 0.5} == {}
    assert peak < 200
    assert peak_mib(service) < peak + 5
    assert service.client.get("/").status_code == 200
    assert no_errors(service)


def test_more_than_100_pipelined_requests_are_a_503_after_those_before(service: Service) -> None:
    before = peak_mib(service)
    with connect(service) as connection:
        flood(connection, (LIVE + b"\r\n") * 2000, 20)
        answers = read_answers(connection)
    assert_problem(answers[-1], 503)
    assert {answer.status_code for answer in answers[:-1]} == {200}
    assert len(answers) > 100
    assert peak_mib(service) < before + 20


@pytest.mark.parametrize(("requests", "statuses"), [(101, [200] * 101), (102, [200] * 101 + [503])])
def test_100_pipelined_requests_may_wait_for_the_one_before_them(
    service: Service, requests: int, statuses: list[int]
) -> None:
    answers = ask(service, (LIVE + b"\r\n") * (requests - 1) + LIVE + b"Connection: close\r\n\r\n")
    assert [answer.status_code for answer in answers] == statuses


@pytest.mark.parametrize("piece", [b"X-Trailer: y\r\n" * 3000, b"X-Trailer: " + b"y" * 50_000], ids=["many", "long"])
def test_endless_trailers_are_a_400_and_not_kept(service: Service, piece: bytes) -> None:
    before = peak_mib(service)
    with connect(service) as connection:
        connection.sendall(CHUNKED + b"2\r\n{}\r\n0\r\n")
        flood(connection, piece, 500)
        assert_problem(read_answers(connection)[0], 400)
    assert peak_mib(service) < before + 20


def test_trailers_are_no_headers(service: Service, account: Account) -> None:
    sent = b"DELETE /v1/auth/me HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nConnection: close\r\n"
    body = json.dumps({"password": account.password}).encode()
    trailer = b"Authorization: Bearer " + account.access_token.encode()
    chunks = b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(body), body, trailer)
    assert_problem(ask_one(service, sent + b"Transfer-Encoding: chunked\r\n\r\n" + chunks), 401)


def test_100_mb_in_chunks_are_a_413_and_not_kept(service: Service) -> None:
    before = peak_mib(service)
    with connect(service) as connection:
        connection.sendall(CHUNKED)
        flood(connection, b"186A0\r\n" + b"x" * 100_000 + b"\r\n", 1000)
        assert_problem(read_answers(connection)[0], 413)
    assert peak_mib(service) < before + 20


def test_headers_that_trickle_are_a_408_in_time_however_often_a_byte_comes(start_service: StartService) -> None:
    service = start_service(REQUEST_TIMEOUT=1)
    with connect(service) as connection:
        connection.sendall(LIVE + b"X-Slow: ")
        started = time.monotonic()
        while not answered(connection, b"x"):
            assert time.monotonic() - started < 5
    assert service.wait_for_log(type="access", status=408)


def answered(connection: socket.socket, byte: bytes) -> bool:
    """Sends one byte; whether an answer has come."""
    connection.settimeout(0.05)
    connection.sendall(byte)
    try:
        return bool(connection.recv(4096))
    except TimeoutError:
        return False


NAMED_TWICE = b"{%s}" % b",".join([b'"%06d":0' % number for number in range(90_000)] + [b'"twice":0'] * 2)
COSTLY = {
    "a type of 32,000 blanks": b"Content-Type: application/json" + b" " * 32_000 + b"x\r\nContent-Length: 2\r\n\r\n{}",
    "90,000 names, the last of them twice": (
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(NAMED_TWICE) + NAMED_TWICE
    ),
}


@pytest.mark.parametrize("costly", COSTLY.values(), ids=COSTLY)
def test_what_costs_much_to_refuse_holds_nobody_up(service: Service, costly: bytes) -> None:
    with connect(service) as connection:
        connection.sendall(b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + costly)
        started = time.monotonic()
        assert service.client.get("/health/live").status_code == 200
        assert time.monotonic() - started < 3  # tried one by one they took 8 s, and more than a minute
        [answer] = read_answers(connection)
        assert answer.status_code in (415, 422)


SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
SHAPES = {
    "two lengths": b"Content-Length: 2\r\nContent-Length: 40\r\n\r\n{}",
    "two lengths in one": b"Content-Length: 2, 2\r\n\r\n{}",
    "a length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "a folded header": b"Transfer-Encoding:\r\n chunked\r\nContent-Length: 0\r\n\r\n",
    "a length with a sign": b"Content-Length: +2\r\n\r\n{}",
    "a length in hexadecimal": b"Content-Length: 0x2\r\n\r\n{}",
    "a length too long": b"Content-Length: 99999999999999999999999\r\n\r\n{}",
    "a chunk with a sign": b"Transfer-Encoding: chunked\r\n\r\n+2\r\n{}\r\n0\r\n\r\n",
    "a chunk of 2^64 and more": b"Transfer-Encoding: chunked\r\n\r\n10000000000000002\r\n{}\r\n0\r\n\r\n",
    "a chunk longer than it says": b"Transfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n",
    "a NUL in a header": b"X-A: a\0b\r\n\r\n",
    "a bare CR in a header": b"X-A: a\rContent-Length: 40\r\n\r\n",
    "an upgrade with both": (
        b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_request_that_two_servers_could_read_differently_is_the_last_of_its_connection(
    service: Service, shape: bytes
) -> None:
    answers = ask(service, LOGIN + shape + SMUGGLED)
    assert_problem(answers[-1], 400)
    assert not any(answer.status_code == 404 for answer in answers)
