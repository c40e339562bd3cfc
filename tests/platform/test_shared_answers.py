"""What an application keeps and sends again stays as it is: each answer gets headers of its own."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from infra.http.cors import Cors
from infra.http.frame import Frame
from infra.http.limits import RequestLimits
from settings import load
from tests.support.asgi import GET, answer_to, body, fields, start

UNREAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"  # an answer to it closes the connection
ASKED = {"a GET": GET, "a body that nobody reads": UNREAD}


def framed(app: ASGIApp, origins: tuple[str, ...] = ("https://app.example",)) -> ASGIApp:
    """Inside all that the service puts around its handlers; as there, nothing of CORS without origins."""
    limited = RequestLimits(app, load({"SYS_ENV": "test", "SECRET_KEY": "k" * 32}))
    return Frame(limited, debug=False, cors=Cors(origins) if origins else None)


def names(answer: bytes) -> list[bytes]:
    lines = answer.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return sorted(line.partition(b":")[0].lower() for line in lines)


def shared_response() -> tuple[ASGIApp, Any]:
    response = PlainTextResponse("ok", headers={"Vary": "Accept", "Cache-Control": "max-age=1"})
    return response, response.raw_headers


def shared_headers() -> tuple[ASGIApp, Any]:
    headers = [(b"content-length", b"2"), (b"vary", b"Accept")]
    return answering(headers), headers


def shared_lists() -> tuple[ASGIApp, Any]:
    headers = [[b"content-length", b"2"], [b"vary", b"Accept"]]
    return answering(headers), headers


def shared_message() -> tuple[ASGIApp, Any]:
    message = start((b"content-length", b"2"))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(message)
        await send(body(b"ok"))

    return app, message


def shared_message_without_headers() -> tuple[ASGIApp, Any]:
    message = {"type": "http.response.start", "status": 204}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(message)
        await send({"type": "http.response.body"})

    return app, message


def answering(headers: Any) -> ASGIApp:
    """Its messages are new ones, with these very headers."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send(body(b"ok"))

    return app


@pytest.mark.parametrize("sent", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("origins", [(), ("https://app.example",)], ids=["no CORS", "CORS"])
@pytest.mark.parametrize("origin", [b"", b"Origin: https://app.example\r\n"])
@pytest.mark.parametrize(
    "shared", [shared_response, shared_headers, shared_lists, shared_message, shared_message_without_headers]
)
def test_what_is_sent_again_and_again_stays_as_it_is(
    shared: Any, origin: bytes, origins: tuple[str, ...], sent: bytes
) -> None:
    app, kept = shared()
    before = copy.deepcopy(kept)
    asked = sent.replace(b"Host: x\r\n", b"Host: x\r\n" + origin)
    first, second = (answer_to(asked, framed(app, origins)) for _ in range(2))
    assert kept == before
    assert names(first) == names(second)
    assert names(second).count(b"x-request-id") == names(second).count(b"traceparent") == 1


ONCE = (b"content-length", b"cache-control", b"vary", b"connection")
HEADERS = [(b"Content-Length", b"2"), (b"CACHE-Control", b"max-age=1"), (b"Vary", b"Accept"), (b"Connection", b"close")]
GIVEN: dict[str, Callable[[], Any]] = {
    "a list": lambda: HEADERS,
    "a tuple": lambda: tuple(HEADERS),
    "a generator": lambda: (header for header in HEADERS),
    "lists": lambda: [list(header) for header in HEADERS],
    "a dictionary's items": lambda: dict(HEADERS).items(),
}


@pytest.mark.parametrize("sent", ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("given", GIVEN.values(), ids=GIVEN)
def test_a_header_is_known_in_any_case_and_any_collection(given: Callable[[], Any], sent: bytes) -> None:
    asked = sent.replace(b"Host: x\r\n", b"Host: x\r\nOrigin: https://app.example\r\n")
    answer = answer_to(asked, framed(answering(given())))
    assert [names(answer).count(name) for name in ONCE] == [1] * len(ONCE)
    assert (fields(answer)[b"cache-control"], fields(answer)[b"vary"]) == (b"max-age=1", b"Accept, Origin")
    assert answer.endswith(b"\r\n\r\nok")


@pytest.mark.parametrize("name", [b"x name", b"x:name", b"x\tname", b"x\r\nname", b"x\xc3\xa9\x00", b"(x)"])
def test_a_name_that_is_none_is_an_error_and_never_sent(name: bytes, caplog: pytest.LogCaptureFixture) -> None:
    assert answer_to(GET, framed(answering([(name, b"x"), (b"content-length", b"2")]))) == b""
    assert "Invalid HTTP header name" in caplog.text
