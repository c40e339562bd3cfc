"""Answers in as few writes as they can be, and none of them lost."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import pytest

from infra.fast.batched_writes import FEW, LARGE, Batch
from tests.support.service import Service

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
DATA_SEGMENTS_IN = 152  # where struct tcp_info has tcpi_data_segs_in (<linux/tcp.h>)


class Recorder(asyncio.Transport):
    """Notes what is done to it."""

    def __init__(self, said: list[object] | None = None) -> None:
        super().__init__({"peername": "a client"})
        self.said: list[object] = [] if said is None else said
        self.closed = False

    def __getattribute__(self, name: str) -> Any:
        if name in PASSED_ON:
            return lambda *arguments: self.said.append((name, *arguments))
        return super().__getattribute__(name)

    def write(self, data: Any) -> None:
        self.said.append(data)

    def close(self) -> None:
        self.closed = True
        self.said.append("close")

    def write_eof(self) -> None:
        self.said.append("eof")

    def abort(self) -> None:
        self.closed = True
        self.said.append("abort")

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return 1000


PASSED_ON: dict[str, tuple[Any, ...]] = {
    "get_write_buffer_limits": (),
    "set_write_buffer_limits": (9, 3),
    "can_write_eof": (),
    "is_reading": (),
    "pause_reading": (),
    "resume_reading": (),
    "get_protocol": (),
    "set_protocol": (asyncio.Protocol(),),
}


def said(*steps: Callable[[asyncio.Transport], object], in_flight: int = FEW + 1) -> list[object]:
    """What comes out of a transport's steps within one turn of the loop, and a "turn" at its end."""

    async def run() -> list[object]:
        recorder = Recorder()
        transport = Batch(asyncio.get_running_loop(), range(in_flight)).wrap(recorder)
        for step in steps:
            step(transport)
        recorder.said.append("turn")
        await asyncio.sleep(0)
        return recorder.said

    return asyncio.run(run())


def write(data: bytes) -> Callable[[asyncio.Transport], object]:
    return lambda transport: transport.write(data)


def close(transport: asyncio.Transport) -> None:
    transport.close()


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([write(HEAD), write(b"ok")], ["turn", HEAD + b"ok"]),
        ([write(HEAD)], ["turn", HEAD]),
        ([write(HEAD), write(b"")], ["turn", HEAD]),
        ([write(HEAD), write(b"o"), write(b"k")], [HEAD + b"ok", "turn"]),
        ([write(HEAD), write(b"o"), write(b"k"), write(b"!")], [HEAD + b"ok", b"!", "turn"]),
        ([write(b"part of a stream")], [b"part of a stream", "turn"]),
        ([write(HEAD), write(HEAD), write(b"ok")], [HEAD + HEAD + b"ok", "turn"]),
        ([write(HEAD), write(b"x" * LARGE)], ["turn", HEAD + b"x" * LARGE]),
        ([write(HEAD), write(b"x" * (LARGE + 1))], [HEAD, b"x" * (LARGE + 1), "turn"]),
        ([write(HEAD), write(b"ok"), close], [HEAD + b"ok", "close", "turn"]),
        ([write(HEAD), close], [HEAD, "close", "turn"]),
        ([write(HEAD), write(b"ok"), lambda transport: transport.write_eof()], [HEAD + b"ok", "eof", "turn"]),
        ([write(HEAD), write(b"ok"), lambda transport: transport.abort()], ["abort", "turn"]),
        ([close, write(HEAD), write(b"ok")], ["close", "turn"]),
    ],
    ids=[
        "a whole answer",
        "no body",
        "an empty body",
        "two parts",
        "three parts",
        "a later part",
        "100 Continue, then the answer",
        "as large as it may be",
        "too large to be kept",
        "closed",
        "closed without a body",
        "half closed",
        "aborted",
        "closed before",
    ],
)
def test_what_is_held_leaves_in_the_next_turn_at_the_latest(steps: list[Any], expected: list[object]) -> None:
    assert said(*steps) == expected


def test_few_answers_leave_at_once() -> None:
    assert said(write(HEAD), write(b"ok"), in_flight=FEW) == [HEAD + b"ok", "turn"]


def test_answers_that_are_made_in_one_turn_leave_together() -> None:
    async def run() -> list[object]:
        order: list[object] = []
        batch = Batch(asyncio.get_running_loop(), range(5))
        clients = [batch.wrap(Recorder(order)) for _ in range(5)]
        for client in clients:
            order.append("made")
            client.write(HEAD)
            client.write(b"ok")
        await asyncio.sleep(0)
        return order

    assert asyncio.run(run()) == ["made"] * 5 + [HEAD + b"ok"] * 5


@pytest.mark.parametrize("name", PASSED_ON)
def test_everything_else_is_the_transport_s_own(name: str) -> None:
    assert said(lambda transport: getattr(transport, name)(*PASSED_ON[name])) == [(name, *PASSED_ON[name]), "turn"]


def test_what_is_held_counts_as_waiting_to_be_sent() -> None:
    sizes: list[int] = []
    said(write(HEAD), lambda transport: sizes.append(transport.get_write_buffer_size()))
    assert sizes == [1000 + len(HEAD)]


def test_it_knows_what_the_transport_knows() -> None:
    known: list[object] = []
    said(lambda transport: known.extend([transport.get_extra_info("peername"), transport.get_extra_info("no", 7)]))
    assert known == ["a client", 7]


def test_an_answer_of_the_service_comes_in_one_segment(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", service.port), timeout=10) as client:
        for answers in (1, 2, 3):
            client.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(65536).endswith(b"}")
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, DATA_SEGMENTS_IN + 4)
            assert struct.unpack_from("I", info, DATA_SEGMENTS_IN) == (answers,)
