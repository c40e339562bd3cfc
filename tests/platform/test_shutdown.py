"""SIGTERM and SIGINT: readiness first, then drain, close, flush, exit 0."""

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import httpx
import pytest

from infra.process.server import take_no_more
from tests.conftest import TEST_SETTINGS, StartService
from tests.support.proxy import Proxy
from tests.support.servers import MariaDB, free_port, wait_until
from tests.support.service import ROOT, Account, Service, clean_environment
from tests.support.wire import connect, read_answers


@contextmanager
def logging_in(service: Service, account: Account, connections: int = 1) -> Iterator[Callable[[], list[int]]]:
    """Log-ins that the service has read, each on a connection of its own; what they are answered, when asked for."""
    body = json.dumps({"login": account.username, "password": account.password}).encode()
    head = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
    with ExitStack() as stack:
        clients = [stack.enter_context(connect(service)) for _ in range(connections)]
        for client in clients:
            client.sendall(head % len(body) + b"Connection: close\r\n\r\n" + body)
        httpx.get(f"{service.url}/health/live")  # on a later connection: the others are read by then
        yield lambda: [answer.status_code for client in clients for answer in read_answers(client)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0_and_its_last_line_is_written(
    start_service: StartService, backend: str, number: signal.Signals
) -> None:
    service = start_service(backend)
    service.signal(number)
    assert service.wait_for_exit() == 0
    assert [line["message"] for line in service.log(type="system")][-2:] == ["stopping", "stopped"]


def test_during_the_delay_readiness_is_503_and_everything_else_is_served(start_service: StartService) -> None:
    service = start_service(SHUTDOWN_DELAY=30)
    account = service.sign_up()
    service.signal(signal.SIGTERM)
    service.wait_for_log(message="stopping")
    ready = httpx.get(f"{service.url}/health/ready")
    me = httpx.get(f"{service.url}/v1/auth/me", headers=account.headers)
    assert (ready.status_code, ready.json()["status"]) == (503, "stopping")
    assert (me.status_code, me.headers["connection"]) == (200, "close")
    assert httpx.get(f"{service.url}/health/live").status_code == 200
    service.signal(signal.SIGTERM)  # not to wait for the rest of it
    assert service.wait_for_exit() == 128 + signal.SIGTERM


def test_a_request_in_flight_gets_its_answer(start_service: StartService) -> None:
    service = start_service()
    account = service.sign_up()
    with logging_in(service, account, 4) as answers:
        service.signal(signal.SIGTERM)
        assert answers() == [200] * 4
    assert service.wait_for_exit() == 0


def test_nobody_who_was_accepted_gets_a_reset(start_service: StartService) -> None:
    service = start_service(SHUTDOWN_DELAY="0.3")
    broken: list[str] = []
    answered: list[int] = []

    def load() -> None:
        while True:
            try:
                answered.append(httpx.get(f"{service.url}/health/live").status_code)
            except httpx.ConnectError:
                return
            except httpx.TransportError as error:
                broken.append(repr(error))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    wait_until(lambda: bool(answered), "the first answer")
    service.signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert service.wait_for_exit() == 0
    assert (broken, set(answered)) == ([], {200})


def test_a_listener_that_takes_no_more_keeps_who_has_come_and_answers_nobody_else() -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        early = stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5))
        take_no_more(listener)
        late = stack.enter_context(socket.socket())
        late.settimeout(0.1)
        with pytest.raises(TimeoutError):  # not taken, to be reset when the listener closes
            late.connect(listener.getsockname())
        accepted = stack.enter_context(listener.accept()[0])
        accepted.sendall(b"served")
        assert early.recv(100) == b"served"


def test_kept_alive_connections_are_told_to_close_and_hold_nothing_up(start_service: StartService) -> None:
    service = start_service(SHUTDOWN_TIMEOUT=8)
    with httpx.Client(base_url=service.url) as client:
        client.get("/health/live")
        started = time.monotonic()
        service.signal(signal.SIGTERM)
        assert service.wait_for_exit() == 0
    assert time.monotonic() - started < 4


def lock_database(service: Service) -> sqlite3.Connection:
    """Whoever writes now waits."""
    connection = sqlite3.connect(Path(service.env["DATA_DIR"]) / "berth.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_the_answer_to_a_request_in_flight_closes_its_connection(start_service: StartService) -> None:
    service = start_service(SHUTDOWN_DELAY=30)
    body = json.dumps({"refresh_token": service.sign_up().refresh_token}).encode()
    head = b"POST /v1/auth/refresh HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    lock = lock_database(service)
    with connect(service) as client:
        client.sendall(head % len(body) + body)
        httpx.get(f"{service.url}/health/live")  # on a later connection: the other is read by then
        service.signal(signal.SIGTERM)
        service.wait_for_log(message="stopping")
        lock.close()
        [answer] = read_answers(client)
    assert (answer.status_code, answer.headers.get("connection")) == (200, "close")
    service.signal(signal.SIGTERM)  # not to wait for the rest of the delay
    assert service.wait_for_exit() == 128 + signal.SIGTERM


def test_a_request_longer_than_the_time_out_is_a_503_and_the_exit_still_0(start_service: StartService) -> None:
    service = start_service(SHUTDOWN_TIMEOUT=1)
    account = service.sign_up()
    lock = lock_database(service)
    with logging_in(service, account) as answers:
        service.signal(signal.SIGTERM)
        assert answers() == [503]
    assert service.wait_for_exit(within=6) == 0, "though the lock is still held"
    lock.close()


def test_a_silent_database_does_not_hold_up_the_exit(start_service: StartService, mariadb: MariaDB) -> None:
    proxy = Proxy(mariadb.port)
    service = start_service("mysql+redis", MYSQL_PORT=proxy.port, SHUTDOWN_TIMEOUT=1)
    account = service.sign_up()
    proxy.stall()
    with logging_in(service, account) as answers:
        started = time.monotonic()
        service.signal(signal.SIGTERM)
        assert answers() == [503]
        assert service.wait_for_exit() == 0
    assert time.monotonic() - started < 8
    proxy.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(start_service: StartService, number: signal.Signals) -> None:
    service = start_service(SHUTDOWN_DELAY=30)
    service.signal(signal.SIGTERM)
    service.wait_for_log(message="stopping")
    service.signal(number)
    assert service.wait_for_exit(within=3) == 128 + number


def test_half_a_request_does_not_hold_up_the_exit(start_service: StartService) -> None:
    service = start_service()
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        connection.sendall(b"GET /health/live HTT")
        httpx.get(f"{service.url}/health/live")  # on a later connection: the half of the other is read by then
        service.signal(signal.SIGTERM)
        assert service.wait_for_exit(within=6) == 0


def test_a_stdout_that_nobody_reads_stops_neither_requests_nor_the_exit(tmp_path: Path) -> None:
    own = {"HOST": "127.0.0.1", "PORT": free_port(), "DATA_DIR": tmp_path, "LOG_LEVEL": "DEBUG"}
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "app.py"], cwd=ROOT, env=clean_environment(TEST_SETTINGS | own), stdout=writer
    )
    os.close(writer)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{own['PORT']}", timeout=5) as client:
            wait_until(partial(is_live, client, process), "the service")
            assert {client.get("/nothing", headers={"User-Agent": "x" * 4000}).status_code for _ in range(300)} == {404}
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    finally:
        process.kill()
        os.close(reader)


def is_live(client: httpx.Client, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"it ended with status {process.returncode}"
    try:
        return client.get("/health/live").status_code == 200
    except httpx.TransportError:
        return False
