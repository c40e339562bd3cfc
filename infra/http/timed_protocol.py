"""How long a connection may take: for a request's headers, for its next request, and to take its answers."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from infra.base.errors import Unavailable
from infra.http.limits import LINGER, PACE
from infra.http.problems import Problem
from settings import Settings


class TimedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1, whose time is REQUEST_TIMEOUT for headers, KEEP_ALIVE between requests, PACE for answers."""

    header_bytes = 0  # of headers or trailers that aren't complete; 0 between requests and within a body
    refused = False  # nothing more is read
    extra = False  # over a limit of connections: for /health only
    late = False  # the time of an idle connection has run out: it lingers, and its next answer is the last
    header_timer: asyncio.TimerHandle | None = None
    idle_timer: asyncio.TimerHandle | None = None
    idle_since: float | None = None  # the loop's seconds; None while something is asked
    write_timer: asyncio.TimerHandle | None = None
    unsent = 0  # bytes, when the timer was set

    def __init__(self, settings: Settings, *options: Any) -> None:
        super().__init__(*options)
        self.settings = settings
        self.keep_alive = settings.keep_alive

    def refuse(self, problem: Problem | Unavailable) -> None:
        """Answers with the problem, as the last answer."""
        raise NotImplementedError

    def cancel_timers(self) -> None:
        for timer in (self.header_timer, self.idle_timer, self.write_timer):
            if timer:
                timer.cancel()

    def set_header_timer(self, seconds: float) -> None:
        self.header_timer = self.loop.call_later(seconds, self.on_header_timeout)

    def forget_header_timer(self) -> None:
        if self.header_timer:
            self.header_timer.cancel()
            self.header_timer = None

    def on_header_timeout(self) -> None:
        self.header_timer = None
        if self.header_bytes:
            self.refuse(Problem(408, "the headers were sent too slowly"))
        elif self.extra:
            self.transport.close()
        elif self.late:
            self.hang_up()
        else:
            self.late = True
            self.set_header_timer(LINGER)

    def start_idling(self) -> None:
        """Where uvicorn sets a timer for each answer, one looks again when the last would have run out."""
        self.idle_since = self.loop.time()
        self.idle_timer = self.idle_timer or self.loop.call_later(self.keep_alive, self.on_idle_timer)

    def on_idle_timer(self) -> None:
        """Closes nothing at once: a request that was sent in time, and comes now, is still answered, as the last."""
        self.idle_timer = None
        if self.idle_since is not None:
            rest = self.idle_since + self.keep_alive - self.loop.time()
            if rest <= 0 and self.late:
                self.hang_up()
                return
            self.late = rest <= 0
            self.idle_timer = self.loop.call_later(LINGER if self.late else rest, self.on_idle_timer)

    def hang_up(self) -> None:
        """Says the end first: closing at once would reset what still comes (RFC 9112, 9.6)."""
        self.refused = True
        if not self.transport.is_closing():
            self.transport.write_eof()
            self.header_timer = self.loop.call_later(LINGER, self.transport.close)
            self.watch_writing()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watch_writing()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.write_timer:
            self.write_timer.cancel()
            self.write_timer = None
        if self.transport.is_closing():
            self.watch_writing()

    def watch_writing(self) -> None:
        """Whoever doesn't take an answer at PACE is cut off, else it would stay in memory for as long as they like."""
        self.unsent = self.transport.get_write_buffer_size()
        if self.unsent and not self.write_timer:
            self.write_timer = self.loop.call_later(self.settings.request_timeout, self.on_write_timer)

    def on_write_timer(self) -> None:
        self.write_timer = None
        if self.unsent - self.transport.get_write_buffer_size() < PACE * self.settings.request_timeout:
            self.transport.abort()
        else:
            self.watch_writing()
