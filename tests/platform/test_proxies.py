"""FORWARDED_ALLOW_IPS: whose word counts for where a request came from, and how."""

import socket
from collections.abc import Iterator
from itertools import count

import pytest

from infra.http.clients import TrustedProxies, address_of
from tests.conftest import TEST_SETTINGS
from tests.support.service import Service, read_all

NUMBERS = count(1)
PROXIES = "127.0.0.1, 10.0.0.0/8, ::ffff:192.0.2.0/120, 2001:db8:1::/48"
HSTS = "strict-transport-security"


class OnEverything(Service):
    """Listens on IPv6 and IPv4."""

    def __init__(self, **settings: str) -> None:
        super().__init__({**TEST_SETTINGS, "HOST": "::", **settings})


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with OnEverything(FORWARDED_ALLOW_IPS=PROXIES) as one:
        yield one


@pytest.fixture(scope="module")
def believing() -> Iterator[Service]:
    with OnEverything(FORWARDED_ALLOW_IPS="*") as one:
        yield one


def ask(service: Service, *lines: str, host: str = "127.0.0.1") -> tuple[str, bool]:
    """The client of the access line, and whether the answer keeps browsers from plain HTTP."""
    request_id = f"hop-{next(NUMBERS)}"
    head = "\r\n".join(
        ["GET / HTTP/1.1", "Host: x", f"X-Request-ID: {request_id}", *lines, "Connection: close", "", ""]
    )
    with socket.create_connection((host, service.port), timeout=10) as connection:
        connection.sendall(head.encode("latin-1"))
        answer = read_all(connection).lower()
    client = service.wait_for_log(type="access", request_id=request_id)["client"]
    return client, HSTS.encode() in answer


GARBAGE = [
    "", ",", "x", "x" * 5000, "unknown", "_hidden", "localhost", "1.2.3", "1.2.3.4.5", "256.1.1.1", "010.1.1.1",
    "1.2.3.4/8", "1.2.3.4:x", "1.2.3.4:", "[1.2.3.4", "2001:db8::7]:80", "::g", "fe80::1%eth0", "-", "*", "\xff", "'",
    '"192.168.1.7"', "192.168.1.7;x", "192.168.1.7 x", "for=192.168.1.7", "http://192.168.1.7", "192.168.1.7, x",
]  # fmt: skip
CHAINS = {
    "192.168.1.7": "192.168.1.7",
    "192.168.1.7:4711": "192.168.1.7",
    "2001:db8::7": "2001:db8::7",
    "2001:DB8:0:0::7": "2001:db8::7",
    "[2001:db8::7]": "2001:db8::7",
    "[2001:db8::7]:4711": "2001:db8::7",
    "::ffff:192.168.1.7": "192.168.1.7",
    "[::ffff:c0a8:107]:80": "192.168.1.7",
    "\t192.168.1.7 ,, ": "192.168.1.7",
    "6.6.6.6, 192.168.1.7": "192.168.1.7",
    "6.6.6.6, 192.168.1.7, 10.1.2.3": "192.168.1.7",
    "6.6.6.6\r\nX-Forwarded-For: 192.168.1.7\r\nX-Forwarded-For: 10.1.2.3": "192.168.1.7",
    "192.168.1.7, ::ffff:10.1.2.3, 192.0.2.9, 2001:db8:1::9": "192.168.1.7",
    "10.1.1.1, 10.2.2.2": "10.1.1.1",
    # what is no address names nobody: whoever sent it counts
    **dict.fromkeys(GARBAGE, "127.0.0.1"),
    "x, 192.168.1.7": "192.168.1.7",
    "x, 10.1.2.3": "10.1.2.3",
    "192.168.1.7, x, 10.1.2.3": "10.1.2.3",
}


@pytest.mark.parametrize(("chain", "client"), CHAINS.items(), ids=lambda text: repr(text[:40]))
def test_the_client_is_the_nearest_that_is_no_trusted_proxy(service: Service, chain: str, client: str) -> None:
    assert ask(service, f"X-Forwarded-For: {chain}")[0] == client


@pytest.mark.parametrize(
    ("chain", "client"),
    [("192.168.1.7, 6.6.6.6", "192.168.1.7"), ("x, 6.6.6.6", "6.6.6.6"), ("x", "127.0.0.1"), ("", "127.0.0.1")],
)
def test_where_everybody_is_believed_the_client_is_the_first(believing: Service, chain: str, client: str) -> None:
    assert ask(believing, f"X-Forwarded-For: {chain}")[0] == client


def test_who_is_no_trusted_proxy_is_not_believed(service: Service) -> None:
    said = ("X-Forwarded-For: 192.168.1.7", "X-Forwarded-Proto: https")
    assert ask(service, *said, host="::1") == ("::1", False)


def test_a_client_of_ipv4_is_named_by_its_ipv4_address(service: Service) -> None:
    assert ask(service)[0] == "127.0.0.1"


@pytest.mark.parametrize(
    ("said", "https"),
    [
        (["https"], True),
        ([" HTTPS\t"], True),
        (["https, http"], True),
        ([",https"], True),
        (["https", "http"], True),
        (["http"], False),
        (["http, https"], False),
        ([""], False),
        (["https://"], False),
        (["wss"], False),
        (['"https"'], False),
    ],
)
def test_what_came_by_https_is_told_to_come_by_https_again(service: Service, said: list[str], https: bool) -> None:
    assert ask(service, *(f"X-Forwarded-Proto: {one}" for one in said))[1] == https


@pytest.mark.parametrize(
    "head", ["GET /nowhere HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\n", "GET / HTTP/2.0\r\nHost: x\r\n"]
)
def test_every_answer_by_https_says_so(service: Service, head: str) -> None:
    answer = service.raw(f"{head}X-Forwarded-Proto: https\r\nConnection: close\r\n\r\n".encode())
    assert f"{HSTS}: max-age=31536000\r\n".encode() in answer


@pytest.mark.parametrize(
    ("proxies", "trusted", "others"),
    [
        ("10.0.0.1", ["10.0.0.1", "::ffff:10.0.0.1", "::FFFF:A00:1"], ["10.0.0.2", "::10.0.0.1", "x"]),
        ("::ffff:10.0.0.1", ["10.0.0.1"], ["10.0.0.2"]),
        ("::ffff:10.0.0.0/104", ["10.9.9.9", "::ffff:10.9.9.9"], ["11.0.0.1"]),
        ("::/0", ["::1", "2001:db8::1"], ["10.0.0.1", "::ffff:10.0.0.1"]),
        ("0.0.0.0/0", ["10.0.0.1", "::ffff:10.0.0.1"], ["::1"]),
        ("*", ["10.0.0.1", "::1", "x"], []),
    ],
)
def test_an_ipv4_mapped_address_is_its_ipv4_address(proxies: str, trusted: list[str], others: list[str]) -> None:
    found = TrustedProxies(proxies)
    assert [address for address in [*trusted, *others] if address_of(address) in found] == trusted
