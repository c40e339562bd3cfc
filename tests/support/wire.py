"""Answers as they come over the wire, for what no HTTP client would send, and what every answer must have."""

import json
import re
import socket
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol

import httpx

from tests.support.service import Service, read_all

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-0[01]")


class AnyAnswer(Protocol):
    @property
    def status_code(self) -> int: ...

    @property
    def headers(self) -> httpx.Headers: ...

    def json(self) -> Any: ...


@dataclass(frozen=True)
class Answer:
    status_code: int
    headers: httpx.Headers
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def parse_answers(data: bytes) -> list[Answer]:
    """Every answer in these bytes. One that is cut off fails the test."""
    answers = []
    while data:
        head, blank, data = data.partition(b"\r\n\r\n")
        assert blank, f"an answer's headers are cut off: {head[:500]!r}"
        status_line, *lines = head.split(b"\r\n")
        headers = httpx.Headers([(name, value.strip()) for name, _, value in (line.partition(b":") for line in lines)])
        length = int(headers.get("content-length", "0"))
        assert len(data) >= length, f"an answer's body is cut off: {head!r}"
        answers.append(Answer(int(status_line.split()[1]), headers, data[:length]))
        data = data[length:]
    return answers


def ask(service: Service, sent: bytes, within: float = 10.0) -> list[Answer]:
    return parse_answers(service.raw(sent, within))


def ask_one(service: Service, sent: bytes, within: float = 10.0) -> Answer:
    [answer] = ask(service, sent, within)
    return answer


def connect(service: Service, within: float = 10.0) -> socket.socket:
    return socket.create_connection(("127.0.0.1", service.port), timeout=within)


def read_answers(connection: socket.socket) -> list[Answer]:
    return parse_answers(read_all(connection))


def trace_id(answer: AnyAnswer) -> str:
    found = TRACEPARENT.fullmatch(answer.headers["traceparent"])
    assert found, answer.headers
    return found[1]


def assert_problem(answer: AnyAnswer, status: int, instance: str | None = None) -> dict[str, Any]:
    """A problem document, whole and of this answer; returns it."""
    assert answer.status_code == status, (answer.status_code, answer.json())
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    names = {"type", "title", "status", "detail", "instance", "trace_id"}
    assert set(problem) - {"errors"} == names
    assert (problem["type"], problem["title"], problem["status"]) == ("about:blank", HTTPStatus(status).phrase, status)
    assert problem["detail"]
    assert problem["trace_id"] == trace_id(answer)
    assert instance in (None, problem["instance"])
    if status == 422:
        assert problem["errors"]
        assert all(set(error) == {"field", "message"} and error["message"] for error in problem["errors"])
    return problem
