"""Each bound at its edge: what just fits is taken, one more is refused."""

import socket
import sqlite3
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.conftest import EVENTS_TOKEN, StartService
from tests.support.service import Service, read_all

LOGIN = b'{"login": "nobody-here", "password": "wrong one"}'
MAX_BODY = 1000


@pytest.fixture(scope="module")
def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {EVENTS_TOKEN}"}


@pytest.mark.parametrize("chunks", [0, 1, 7, MAX_BODY], ids="in {} chunks".format)
def test_a_body_of_max_body_bytes_is_read_and_one_byte_more_is_not(start_service: StartService, chunks: int) -> None:
    service = start_service(MAX_BODY_BYTES=MAX_BODY)

    def send(size: int) -> int:
        body = LOGIN.ljust(size)
        length = -(-size // chunks) if chunks else size
        parts = [body[start : start + length] for start in range(0, size, length)]
        headers = {"Content-Type": "application/json"}
        content = iter(parts) if chunks else body  # without a length, or with one
        return service.client.post("/v1/auth/login", content=content, headers=headers).status_code

    assert [send(size) for size in (MAX_BODY, MAX_BODY + 1, MAX_BODY)] == [401, 413, 401]


@pytest.mark.parametrize("first", [10, 20_000, 40_000], ids="{} bytes at first".format)
@pytest.mark.parametrize(("size", "status"), [(32 * 1024, b"200"), (32 * 1024 + 1, b"431")])
def test_path_and_headers_may_have_32_kib(service: Service, size: int, status: bytes, first: int) -> None:
    head = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Large: "
    counted = len("/health/live") + len("Host: x\r\n") + len("Connection: close\r\n") + len("X-Large: \r\n")
    request = head + b"x" * (size - counted) + b"\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as connection:
        connection.sendall(request[:first])
        time.sleep(0.05 if request[first:] else 0)
        connection.sendall(request[first:])
        assert read_all(connection).split()[1] == status


@pytest.mark.parametrize(("fields", "status"), [(100, 200), (101, 400)])
def test_a_form_may_have_100_fields(service: Service, bearer: dict[str, str], fields: int, status: int) -> None:
    body = "&".join(["token=x", *(f"f{number}=" for number in range(fields - 1))])
    headers = bearer | {"Content-Type": "application/x-www-form-urlencoded"}
    answer = service.client.post("/v1/auth/introspect", content=body.encode(), headers=headers)
    assert answer.status_code == status


@pytest.mark.parametrize("most", [1, 3])
def test_max_concurrency_requests_are_served_at_once_and_the_next_is_refused(
    start_quick_service: StartService, most: int
) -> None:
    service = start_quick_service(MAX_CONCURRENCY=most)
    tokens = [service.sign_up().refresh_token for _ in range(most)]
    lock = sqlite3.connect(service.data / "berth.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # nobody whose turn it is can go on
    with ThreadPoolExecutor(most) as threads:
        held = [threads.submit(post, service, {"refresh_token": token}) for token in tokens]
        statuses: list[int] = []
        while 503 not in statuses and len(statuses) < 200:
            statuses.append(httpx.get(f"{service.url}/nothing").status_code)
            time.sleep(0.01)
        assert [future.done() for future in held] == [False] * most
        lock.execute("ROLLBACK")
        assert [future.result() for future in held] == [200] * most
    lock.close()
    assert set(statuses[:-1]) <= {404}
    assert statuses[-1] == 503
    assert Counter(httpx.get(f"{service.url}/nothing").status_code for _ in range(most + 2)) == {404: most + 2}


def post(service: Service, body: dict[str, str]) -> int:
    """On a connection of its own."""
    return httpx.post(f"{service.url}/v1/auth/refresh", json=body, timeout=20).status_code
