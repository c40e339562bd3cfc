"""What comes is read little by little; what comes while an answer is under way waits as the bytes that it is."""

from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from infra.base.errors import Unavailable
from infra.http.reading import SMALL, Flow, Turns
from infra.http.timed_protocol import TimedProtocol
from settings import Settings

MAX_PIPELINED = 100  # requests that wait for their turn on one connection
MAX_BODY_WAITING = 8 * 1024  # bytes of a body that nobody reads yet, after which no more are taken
END = b"\r\n\r\n"  # of a request without a body, or with chunks
TOO_MANY_PIPELINED = Unavailable("too many requests at once on one connection", retry_after=1)


class PacedProtocol(TimedProtocol):
    """Gives `parse` one request after another, each when those before it are answered."""

    flow: Flow
    running: RequestResponseCycle | None = None  # the answer under way; uvicorn's `cycle` is the newest request's
    in_body = False
    waiting = b""  # what came while an answer was under way, unread
    too_many = False  # the requests after those that wait are refused

    def __init__(self, settings: Settings, turns: Turns, *options: Any) -> None:
        super().__init__(settings, *options)
        self.turns = turns

    def parse(self, data: bytes) -> None:
        """Takes what is of one request only, or the beginning of one."""
        raise NotImplementedError

    def data_received(self, data: bytes) -> None:
        if self.refused or self.too_many:
            return
        self.idle_since = None
        if self.waiting or self.is_busy():
            self.wait(self.waiting + data)
        elif len(data) > SMALL:
            self.wait(data)
            self.turns.add(self)
        elif rest := self.read(data):
            self.wait(rest)

    def is_busy(self) -> bool:
        """Whether an answer is under way, and what comes now no part of its request."""
        cycle = self.cycle
        return cycle is not None and not cycle.response_complete and (not self.in_body or bool(self.pipeline))

    def read(self, data: bytes) -> bytes:
        """Reads request by request until an answer is under way. Returns what is left."""
        end = data.find(END) + len(END)
        while len(END) <= end < len(data):
            self.parse(data[:end])
            data = data[end:]
            if self.refused:
                return b""
            if self.is_busy():
                return data
            end = data.find(END) + len(END)
        self.parse(data)
        return b""

    def wait(self, data: bytes) -> None:
        """Keeps what is next as the bytes that it is: as requests they would take many times as much memory."""
        self.waiting = data
        self.flow.block()
        if self.is_busy():
            *before, rest = data.split(END, MAX_PIPELINED)
            if len(before) == MAX_PIPELINED and rest:
                self.too_many = True
                self.waiting = data[: -len(rest)]

    def read_some(self) -> bool:
        """Of what waits; whether to come again."""
        if self.refused or self.transport.is_closing():
            return False
        data, rest = self.waiting[:SMALL], self.waiting[SMALL:]
        self.waiting = b""
        if data:
            rest = self.read(data) + rest
        if rest and not self.refused:
            self.wait(rest)
        elif self.too_many and not self.is_busy():
            self.refuse(TOO_MANY_PIPELINED)
        elif not self.too_many:
            self.flow.blocked = False
            if not self.in_body or len(self.cycle.body) <= MAX_BODY_WAITING:
                self.flow.resume_reading()
        return bool(rest) and not (self.refused or self.is_busy())

    def on_response_complete(self) -> None:
        if self.pipeline:
            self.running = self.pipeline[-1][0]
            super().on_response_complete()  # starts it
            if self.waiting:
                self.turns.add(self)
        elif not self.cycle.keep_alive:
            self.waiting = b""
            self.watch_writing()
        elif self.waiting or self.too_many:
            self.turns.add(self)
        else:
            self.flow.resume_reading()
            self.start_idling()
