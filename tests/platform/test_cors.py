"""CORS: a page of CORS_ORIGINS may call, send what is read, and read every answer, also the one to what isn't HTTP."""

import signal
import sys
import threading
from collections.abc import Iterator

import pytest

from tests.conftest import TEST_SETTINGS, StartService
from tests.support.service import Service
from tests.support.wire import Answer, ask_one, assert_problem

ORIGIN = "https://app.example"
ASKED = "Access-Control-Request-Method: POST"
SCRIPT = """
import asyncio, os, sys
import app
from starlette.routing import Route
from infra.http.operations import operation
from infra.http.state import Request

@operation()
async def fail(request: Request) -> None:
    raise LookupError("on purpose")

@operation()
async def wait(request: Request) -> None:
    await asyncio.sleep(60)

app.ROUTES.extend([Route("/v1/fail", fail, methods=["GET"]), Route("/v1/wait", wait, methods=["GET"])])
status = app.main([])
sys.stdout.flush()
os._exit(status)
"""


class Failing(Service):
    """Has a route that fails, and one that answers too late."""

    command = (sys.executable, "-c", SCRIPT)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    origins = f"{ORIGIN}:443, http://localhost:3000,http://[0:0::1]:80"
    settings = {"CORS_ORIGINS": origins, "MAX_BODY_BYTES": 1000, "REQUEST_TIMEOUT": 1, "ALLOWED_HOSTS": "x,127.0.0.1"}
    with Failing({**TEST_SETTINGS, **settings}) as one:
        yield one


def send(service: Service, line: str, *lines: str, origin: str = ORIGIN) -> Answer:
    head = [f"{line} HTTP/1.1", "Host: x", f"Origin: {origin}", "Connection: close", *lines, "", ""]
    return ask_one(service, "\r\n".join(head).encode("latin-1"))


def may_read(answer: Answer, origin: str = ORIGIN) -> bool:
    exposed = answer.headers.get("access-control-expose-headers", "").lower().split(", ")
    assert answer.headers["vary"].lower().split(", ").count("origin") == 1
    return answer.headers.get("access-control-allow-origin") == origin and {"x-request-id", "traceparent"} <= set(
        exposed
    )


ANSWERS = {
    200: "GET /health/live HTTP/1.1\r\nHost: x\r\n",
    204: "OPTIONS * HTTP/1.1\r\nHost: x\r\n",
    404: "GET /nowhere HTTP/1.1\r\nHost: x\r\n",
    405: "DELETE / HTTP/1.1\r\nHost: x\r\n",
    401: "GET /v1/auth/me HTTP/1.1\r\nHost: x\r\n",
    408: "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n",
    413: "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 2000\r\n",
    415: "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: x/y\r\nContent-Length: 0\r\n",
    422: "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n",
    400: "GET / HTTP/1.1\r\nHost: evil.example\r\n",
    431: "GET / HTTP/1.1\r\nHost: x\r\nX-Large: " + "x" * 70_000 + "\r\n",
    500: "GET /v1/fail HTTP/1.1\r\nHost: x\r\n",
    501: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n",
    504: "GET /v1/wait HTTP/1.1\r\nHost: x\r\n",
    505: "GET / HTTP/2.0\r\nHost: x\r\n",
}
REFUSED = {
    "no host": "GET / HTTP/1.1\r\n%s\r\n",
    "a broken header": "GET / HTTP/1.1\r\n%sA: b\r\nno colon\r\n\r\n",
    "a broken header after it": "GET / HTTP/1.1\r\nHost: x\r\n%sno colon\r\n\r\n",
    "headers that don't end": "GET / HTTP/1.1\r\n%sA: b\r\nC",
    "a broken chunk": "POST /v1/auth/login HTTP/1.1\r\nHost: x\r\n%sContent-Type: application/json\r\n"
    "Transfer-Encoding: chunked\r\n\r\nzz\r\n",
}


@pytest.mark.parametrize(("status", "head"), ANSWERS.items(), ids=map(str, ANSWERS))
@pytest.mark.parametrize("origin", [ORIGIN, "https://evil.example"], ids=["listed", "another"])
def test_every_answer_may_be_read_by_a_listed_origin_only(
    service: Service, status: int, head: str, origin: str
) -> None:
    line, rest = head.split("\r\n", 1)
    answer = ask_one(service, f"{line}\r\nOrigin: {origin}\r\n{rest}Connection: close\r\n\r\n".encode())
    assert answer.status_code == status
    assert may_read(answer) == (origin == ORIGIN)
    if origin != ORIGIN:
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
def test_the_answer_to_what_is_no_request_may_be_read_too(service: Service, sent: str) -> None:
    answer = ask_one(service, (sent % f"Origin: {ORIGIN}\r\n").encode())
    assert_problem(answer, answer.status_code)
    assert may_read(answer)


def test_the_answer_of_a_service_that_stops_may_be_read_too(start_service: StartService) -> None:
    with Failing({**TEST_SETTINGS, "CORS_ORIGINS": ORIGIN, "SHUTDOWN_TIMEOUT": 0.3}) as one:
        threading.Timer(0.5, one.signal, [signal.SIGTERM]).start()
        answer = send(one, "GET /v1/wait")
    assert answer.status_code == 503
    assert may_read(answer)


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (ORIGIN, True),
        (f" \t{ORIGIN}\t", True),
        ("http://localhost:3000", True),
        ("http://[::1]", True),
        *((other, False) for other in [
            f"{ORIGIN}:443", "http://app.example", "https://APP.example", f"{ORIGIN}.evil.example", "null", "", "*",
            f"{ORIGIN}, {ORIGIN}", f"{ORIGIN}\r\nOrigin: {ORIGIN}", f"{ORIGIN}\r\nOrigin: https://evil.example",
            "http://[::1]:80", "http://localhost",
        ]),
    ],
)  # fmt: skip
def test_an_origin_is_what_a_browser_sends(service: Service, origin: str, allowed: bool) -> None:
    answer = send(service, "GET /", origin=origin)
    assert may_read(answer, origin.strip()) == allowed
    preflight = send(service, "OPTIONS /v1/auth/login", ASKED, origin=origin)
    assert preflight.status_code == (200 if allowed else 400)
    assert may_read(preflight, origin.strip()) == allowed


READ = ["authorization", "content-type", "traceparent", "tracestate", "x-request-id", "x-cloud-trace-context"]


@pytest.mark.parametrize(
    "asked", [", ".join(READ), ",".join(map(str.upper, READ)), ", ,authorization ,\t", "", "accept,accept-language"]
)
def test_a_page_may_send_what_is_read(service: Service, asked: str) -> None:
    answer = send(service, "OPTIONS /v1/auth/login", ASKED, f"Access-Control-Request-Headers: {asked}")
    assert (answer.status_code, may_read(answer)) == (200, True)
    assert set(READ) <= set(answer.headers["access-control-allow-headers"].lower().split(", "))
    assert {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"} == set(
        answer.headers["access-control-allow-methods"].split(", ")
    )


@pytest.mark.parametrize(
    "lines",
    [
        [ASKED, "Access-Control-Request-Headers: x-secret"],
        [ASKED, "Access-Control-Request-Headers: authorization", "Access-Control-Request-Headers: x-secret"],
        ["Access-Control-Request-Method: TRACE"],
        ["Access-Control-Request-Method: post"],
        ["Access-Control-Request-Method:"],
    ],
)
def test_a_preflight_for_anything_else_is_refused(service: Service, lines: list[str]) -> None:
    answer = send(service, "OPTIONS /v1/auth/login", *lines)
    assert_problem(answer, 400)
    assert may_read(answer)


def test_options_without_what_a_preflight_has_is_none(service: Service) -> None:
    assert_problem(send(service, "OPTIONS /v1/auth/login"), 405)


def test_with_a_star_every_page_may_read(start_service: StartService) -> None:
    service = start_service(CORS_ORIGINS="*")
    for origin in (ORIGIN, "null", "http://x"):
        assert send(service, "GET /", origin=origin).headers["access-control-allow-origin"] == "*"
        preflight = send(service, "OPTIONS /", "Access-Control-Request-Method: GET", origin=origin)
        assert preflight.status_code == 200


def test_without_origins_no_page_may(start_service: StartService) -> None:
    service = start_service()
    answers = [send(service, "GET /"), send(service, "OPTIONS /v1/auth/login", ASKED)]
    assert [answer.status_code for answer in answers] == [200, 405]
    assert not any(name.startswith("access-control") for answer in answers for name in answer.headers)
