"""Connections are counted, by client and in all; /health is answered whoever else is there; idle ones end gently."""

import asyncio
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from starlette.types import Receive, Scope, Send

from infra.http.connections import ConnectionLimits
from infra.http.proxies import ForwardedHeaders
from settings import load
from tests.conftest import StartService
from tests.support.proxy import Proxy
from tests.support.service import Service, read_all
from tests.support.wire import assert_problem, parse_answers

ELSEWHERE = "192.0.2.1"  # no proxy of these tests is there
ROOT = b"GET / HTTP/1.1\r\nHost: x\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n\r\n"
KEEP_ALIVE = 0.5


def ask(service: Service, sent: bytes, client: str = "127.0.0.1") -> bytes:
    with socket.create_connection(("127.0.0.1", service.port), 10, (client, 0)) as connection:
        connection.sendall(sent + CLOSE)
        return read_all(connection)


def statuses(service: Service, client: str = "127.0.0.1") -> list[int]:
    """Of `/` and of /health, each on a connection of its own."""
    return [int(ask(service, sent, client).split()[1]) for sent in (ROOT, LIVE)]


@contextmanager
def open_connections(service: Service, clients: list[str], sent: bytes = b"") -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        opened = []
        for client in clients:
            connection = socket.create_connection(("127.0.0.1", service.port), 10, (client, 0))
            opened.append(stack.enter_context(connection))
            connection.sendall(sent)
        yield opened


def wait_until_open_again(service: Service) -> None:
    deadline = time.monotonic() + 10
    while statuses(service) != [200, 200]:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize("sent", [b"", LIVE, LIVE + b"\r\n"], ids=["silent", "half a request", "idle"])
def test_over_its_limit_a_client_gets_health_only_and_others_get_all(start_service: StartService, sent: bytes) -> None:
    service = start_service(MAX_CONNECTIONS_PER_CLIENT=5, FORWARDED_ALLOW_IPS=ELSEWHERE)
    with open_connections(service, ["127.0.0.1"] * 10, sent):
        refused = ask(service, ROOT)
        assert_problem(parse_answers(refused)[0], 503)
        assert b"retry-after: 1" in refused
        assert statuses(service) == [503, 200]
        assert statuses(service, "127.0.0.2") == [200, 200]
    wait_until_open_again(service)


def test_over_the_limit_in_all_everyone_gets_health_only(start_service: StartService) -> None:
    service = start_service(MAX_CONNECTIONS=5, FORWARDED_ALLOW_IPS=ELSEWHERE)
    with open_connections(service, [f"127.0.0.{number}" for number in range(1, 11)]):
        assert statuses(service, "127.0.0.20") == [503, 200]
    wait_until_open_again(service)


def test_when_all_is_taken_whoever_has_most_makes_room_for_another(start_service: StartService) -> None:
    service = start_service(MAX_CONNECTIONS=40, FORWARDED_ALLOW_IPS=ELSEWHERE)
    with open_connections(service, ["127.0.0.1"] * 25 + ["127.0.0.2"] * 15, LIVE + b"\r\n") as held:
        assert statuses(service, "127.0.0.3") == [200, 200]
        held[0].settimeout(10)
        with suppress(ConnectionError):
            while held[0].recv(65536):
                pass
        for one in held[25:]:
            one.sendall(LIVE + b"\r\n")
            assert one.recv(65536)


def test_a_proxy_has_the_limit_in_all_only(start_service: StartService) -> None:
    service = start_service(MAX_CONNECTIONS_PER_CLIENT=2, MAX_CONNECTIONS=20, FORWARDED_ALLOW_IPS="127.0.0.0/24")
    with open_connections(service, ["127.0.0.1"] * 10):
        assert statuses(service) == [200, 200]
        with open_connections(service, ["127.0.0.1"] * 10):
            assert statuses(service) == [503, 200]


def test_a_crowd_over_the_limit_leaves_room_for_health_and_one_line(start_service: StartService) -> None:
    service = start_service(MAX_CONNECTIONS=2, FORWARDED_ALLOW_IPS=ELSEWHERE)
    with open_connections(service, ["127.0.0.1"] * 300) as crowd:
        assert statuses(service) == [503, 200]
        crowd[70].settimeout(10)
        assert crowd[70].recv(1) == b""  # displaced, or silent for too long
    line = service.wait_for_log(severity="WARNING", limit="MAX_CONNECTIONS")
    assert line["count"] >= 1
    assert len(service.log(message=line["message"])) == 1


@pytest.mark.parametrize(
    ("peer", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("10.1.2.3", ""),
        ("::ffff:10.1.2.3", ""),
        ("2001:db8:ff::1", ""),
        ("127.0.0.1", ""),
        ("/run/proxy.sock", ""),
    ],
)
def test_a_client_is_an_ipv4_address_or_an_ipv6_64_and_a_proxy_is_none(peer: str, client: str) -> None:
    env = {"SYS_ENV": "test", "SECRET_KEY": "k" * 32}
    trusted = {"FORWARDED_ALLOW_IPS": "10.0.0.0/8, 127.0.0.1,2001:db8:ff::/48"}
    assert ConnectionLimits(load(env | trusted)).client_of(peer) == client
    assert ConnectionLimits(load(env | {"FORWARDED_ALLOW_IPS": "*"})).client_of(peer) == ""


@pytest.mark.parametrize(
    ("proxies", "peer"), [("::ffff:10.0.0.0/104", "10.1.2.3"), ("fe80::/10", "fe80::1%eth0"), ("::1", "0:0::1")]
)
def test_a_proxy_is_known_however_its_address_is_written(proxies: str, peer: str) -> None:
    settings = load({"SYS_ENV": "test", "SECRET_KEY": "k" * 32, "FORWARDED_ALLOW_IPS": proxies})
    assert ConnectionLimits(settings).client_of(peer) == ""
    assert ForwardedHeaders(no_app, settings.forwarded_allow_ips).find(peer)[1]


async def no_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Is never called."""


@contextmanager
def full_table(service: Service) -> Iterator[None]:
    """No file descriptor is left but for a few, and then not even these."""
    used = len(list(Path(f"/proc/{service.pid}/fd").iterdir()))
    most = resource.prlimit(service.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, (used + 10, most[1]))
    with open_connections(service, ["127.0.0.1"] * 60, LIVE):
        yield
    resource.prlimit(service.pid, resource.RLIMIT_NOFILE, most)


def test_health_is_answered_when_no_file_descriptor_is_left_and_one_line_says_so(start_service: StartService) -> None:
    service = start_service()
    with full_table(service):
        for _ in range(20):
            assert statuses(service) == [503, 200]
    wait_until_open_again(service)
    with full_table(service):
        assert statuses(service) == [503, 200]
    service.wait_for_log(severity="ERROR")
    assert len([line for line in service.lines if line["severity"] == "ERROR"]) == 1
    wait_until_open_again(service)


async def ask_twice(port: int, pause: float) -> bytes:
    """What the second request gets, sent so long after the answer to the first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(LIVE + b"\r\n")
        await reader.readuntil(b"}}")
        await asyncio.sleep(pause)
        writer.write(LIVE + b"\r\n")
        return await reader.readuntil(b"}}")
    except (OSError, asyncio.IncompleteReadError):
        return b""
    finally:
        writer.close()


def test_no_request_is_lost_that_is_sent_at_the_moment_at_which_keep_alive_runs_out(
    start_service: StartService,
) -> None:
    service = start_service(KEEP_ALIVE=KEEP_ALIVE)
    proxy = Proxy(service.port)
    proxy.delay(0.015)
    pauses = [KEEP_ALIVE + number / 1000 for number in range(-60, 200, 4)]

    async def ask_all() -> list[bytes]:
        return await asyncio.gather(*(ask_twice(proxy.port, pause) for pause in pauses))

    answers = asyncio.run(ask_all())
    proxy.close()
    assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
    assert b"connection: close" in answers[-1]  # it has run out, so that the answer is the last


def test_an_idle_connection_ends_without_a_reset(start_service: StartService) -> None:
    service = start_service(KEEP_ALIVE=KEEP_ALIVE)
    with open_connections(service, ["127.0.0.1"], LIVE + b"\r\n") as [connection]:
        answers = b""
        while part := connection.recv(65536):
            answers += part
        connection.sendall(LIVE)  # crosses the end
        time.sleep(0.1)
        assert connection.recv(1) == b""
    assert answers.startswith(b"HTTP/1.1 200")
