"""How an answer goes over the wire, whatever the application sends: small ones of the tests' own, on a real socket."""

import asyncio
import dataclasses
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop
from starlette.types import Receive, Scope, Send

from infra.process.server import Server
from tests.support.asgi import GET, Part, answer_to, body, fields, sending, served, serving, start

Meanwhile = Callable[[Server, list[socket.socket]], None]


@pytest.mark.parametrize("headers", [(), ((b"transfer-encoding", b"chunked"),)], ids=["by itself", "as the app says"])
def test_a_body_of_unknown_length_is_chunked(headers: tuple[tuple[bytes, bytes], ...]) -> None:
    answer = answer_to(
        GET, sending(start(*headers), body(b"one", more_body=True), body(b"", more_body=True), body(b"three"))
    )
    assert answer.count(b"transfer-encoding: chunked\r\n") == 1
    assert answer.endswith(b"\r\n\r\n3\r\none\r\n5\r\nthree\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    ("sent", "status"), [(GET, 204), (GET, 304), (GET.replace(b"GET", b"HEAD"), 200)], ids=["204", "304", "HEAD"]
)
def test_an_answer_that_has_no_body_is_not_framed_as_one(sent: bytes, status: int) -> None:
    answer = answer_to(sent, sending(start(status=status), body(b"" if status != 200 else b"left out")))
    assert answer.endswith(b"\r\n\r\n")
    assert b"transfer-encoding" not in fields(answer)


def test_an_answer_to_head_keeps_the_length_of_the_body_that_it_leaves_out() -> None:
    answer = answer_to(GET.replace(b"GET", b"HEAD"), sending(start((b"content-length", b"8")), body(b"left out")))
    assert fields(answer)[b"content-length"] == b"8"
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize("value", [b"a\r\nX-Forged: 1", b"a\nX-Forged: 1", b"a\rX", b"a\0b"])
@pytest.mark.parametrize("place", ["name", "value"])
def test_a_header_that_would_go_on_as_another_is_never_sent(value: bytes, place: str) -> None:
    header = (value, b"x") if place == "name" else (b"x-name", value)
    assert answer_to(GET, sending(start(header, (b"content-length", b"0")), body(b""))) == b""


@pytest.mark.parametrize(
    "parts",
    [
        (start((b"content-length", b"2")), body(b"too long")),
        (start((b"content-length", b"20")), body(b"too short")),
        (start((b"content-length", b"2")), start()),
        (start((b"content-length", b"2")),),
    ],
    ids=["longer than it says", "shorter than it says", "begun twice", "begun only"],
)
def test_an_answer_that_breaks_the_protocol_is_cut_off(parts: tuple[Part, ...]) -> None:
    answer = answer_to(GET, sending(*parts))
    assert len(answer.partition(b"\r\n\r\n")[2]) < int(fields(answer)[b"content-length"])


def test_two_answers_on_one_connection_are_whole_and_in_order() -> None:
    async def exchange() -> tuple[bytes, bytes]:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            path = scope["path"].encode()
            await asyncio.sleep(0.05 if path == b"/slow" else 0)
            await sending(start((b"content-length", b"%d" % len(path))), body(path))(scope, receive, send)

        async with served(app) as (reader, writer), asyncio.timeout(10):
            writer.write(GET.replace(b"/ ", b"/slow ") + GET.replace(b"/ ", b"/quick "))
            return await reader.readuntil(b"/slow"), await reader.readuntil(b"/quick")

    first, second = asyncio.run(exchange())
    assert first.startswith(b"HTTP/1.1 200 OK\r\n")
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")


@asynccontextmanager
async def kept_alive(app: Any, seconds: float) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to the app of a server that keeps an idle one for so long."""
    async with serving(app) as (server, address), asyncio.timeout(10):
        server.settings = dataclasses.replace(server.settings, keep_alive=seconds)
        reader, writer = await asyncio.open_connection(*address)
        try:
            yield reader, writer
        finally:
            writer.close()


def test_a_connection_on_which_nothing_more_is_asked_is_closed() -> None:
    async def exchange() -> bytes:
        async with kept_alive(sending(start((b"content-length", b"2")), body(b"ok")), 0.2) as (reader, writer):
            for _ in range(2):
                writer.write(GET)
                await reader.readuntil(b"ok")
            return await reader.read()

    assert asyncio.run(exchange()) == b""


@pytest.mark.parametrize(("size", "whole"), [(10, False), (65_536, True)], ids=["byte by byte", "in pieces"])
def test_an_answer_that_is_taken_below_its_pace_is_cut_off(size: int, whole: bool) -> None:
    length = 5_000_000  # more than the kernel takes

    async def exchange() -> int:
        received = 0
        answer = sending(start((b"content-length", b"%d" % length)), body(b"x" * length))
        async with serving(answer) as (server, address), asyncio.timeout(20):
            server.settings = dataclasses.replace(server.settings, request_timeout=1)
            with socket.create_connection(address) as client, suppress(OSError):
                client.setblocking(False)
                client.send(GET.replace(b"Host", b"Connection: close\r\nHost"))
                part = await asyncio.get_running_loop().sock_recv(client, size)
                while part and (whole or server.server_state.connections):
                    received += len(part)
                    await asyncio.sleep(0.02)
                    part = await asyncio.get_running_loop().sock_recv(client, size)
        return received

    assert (uvloop.run(exchange()) >= length) == whole


def test_a_connection_on_which_an_answer_takes_long_is_not_idle() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(0.3 if scope["path"] == "/slow" else 0)
        await sending(start((b"content-length", b"2")), body(b"ok"))(scope, receive, send)

    async def exchange() -> bytes:
        async with kept_alive(app, 0.1) as (reader, writer):
            writer.write(GET)
            await reader.readuntil(b"ok")
            writer.write(GET.replace(b"/ ", b"/slow "))
            return await reader.readuntil(b"ok")

    assert asyncio.run(exchange()).endswith(b"ok")


def nothing(server: Server, clients: list[socket.socket]) -> None:
    pass


def made_in_one_turn(count: int, *, before: Meanwhile = nothing, after: Meanwhile = nothing) -> list[bytes]:
    """What so many clients get; `before` comes before all answers are made, and `after` in the turn that makes them."""

    async def exchange() -> list[bytes]:
        asked, go = [], asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            asked.append(scope)
            await go.wait()
            await sending(start((b"content-length", b"2")), body(b"ok"))(scope, receive, send)

        async with serving(app) as (server, address), asyncio.timeout(10):
            with ExitStack() as stack:
                clients = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
                for client in clients:
                    client.setblocking(False)
                    client.send(GET)
                while len(asked) < count:  # noqa: ASYNC110 - the server is in the same loop
                    await asyncio.sleep(0.01)
                go.set()
                before(server, clients)
                await asyncio.sleep(0)
                after(server, clients)
                return [await first_answer(client) for client in clients if client.fileno() >= 0]

    return uvloop.run(exchange())  # the service's loop: when it reads and when it calls matters here


async def first_answer(client: socket.socket) -> bytes:
    answer = b""
    with suppress(OSError):  # closed or reset
        while not answer.endswith(b"ok") and (part := await asyncio.get_running_loop().sock_recv(client, 1000)):
            answer += part
    return answer


def half_close(server: Server, clients: list[socket.socket]) -> None:
    for client in clients:
        client.shutdown(socket.SHUT_WR)


def shut_down(server: Server, clients: list[socket.socket]) -> None:
    for connection in list(server.server_state.connections):
        connection.shutdown()


@pytest.mark.parametrize("closing", [half_close, shut_down])
def test_an_answer_that_is_made_is_not_lost_with_its_connection(closing: Meanwhile) -> None:
    assert all(made_in_one_turn(5, after=closing))


def test_a_client_that_has_gone_takes_no_other_ones_answer_with_it() -> None:
    def reset(server: Server, clients: list[socket.socket]) -> None:
        for client in clients[:2]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()

    answers = made_in_one_turn(5, before=reset)
    assert len(answers) == 3
    assert all(answers)


POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
LEFT_BEHIND = {
    "a request": GET,
    "requests": GET * 3,
    "a request and the half of another": GET + b"GET /",
    "a request and what is none": GET + b"nonsense\r\n\r\n",
    "a request, and another without its body": GET + POST + b"Content-Length: 9\r\n\r\n",
    "half a body": POST + b"Content-Length: 9\r\n\r\nhalf",
    "half a body in chunks": POST + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhalf",
    "more of a body than is read at once": POST + b"Content-Length: 900000\r\n\r\n" + b"x" * 200_000,
    "a body that awaits 100 Continue": POST + b"Content-Length: 9\r\nExpect: 100-continue\r\n\r\n",
    "a body that isn't framed": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "what asks for an upgrade": POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 9\r\n\r\nhalf",
}


@pytest.mark.parametrize("sent", LEFT_BEHIND.values(), ids=LEFT_BEHIND)
def test_a_client_that_resets_is_no_error(sent: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def exchange() -> None:
        asked, gone = asyncio.Event(), asyncio.Event()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            asked.set()
            await gone.wait()
            await send(start())
            for _ in range(3):
                await send(body(b"part", more_body=True))
                await asyncio.sleep(0)
            while (await receive()).get("more_body"):
                pass
            await send(body(b""))

        async with serving(app) as (server, address), asyncio.timeout(10):
            with socket.create_connection(address) as client:
                client.setblocking(False)
                await asyncio.get_running_loop().sock_sendall(client, sent)
                await asked.wait()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for _ in range(5):  # turns in which it may notice; what it has stopped to read it notices when it writes
                await asyncio.sleep(0.01)
            gone.set()
            while server.server_state.tasks:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    uvloop.run(exchange())
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
