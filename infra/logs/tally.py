"""Log lines for what may happen too often for a line each."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from logging import Logger

MINUTE = 60.0


class Tally:
    """Counts; the first line comes after `delay` seconds, and then one a minute with how many there were since."""

    def __init__(
        self, logger: Logger, message: str, delay: float = 0, at_end: Callable[[], object] | None = None
    ) -> None:
        self.logger = logger
        self.message = message
        self.delay = delay
        self.at_end = at_end  # called after a minute without any
        self.count = 0
        self.kinds: set[str] = set()
        self.newest: dict[str, object] = {}
        self.timer: asyncio.TimerHandle | None = None

    def add(self, kind: str = "", **newest: object) -> None:
        """The line has all kinds that were counted, and what else was said of the newest."""
        self.count += 1
        self.newest = newest
        if kind:
            self.kinds.add(kind)
        if self.timer is None and self.delay:
            self.write_in(self.delay)
        elif self.timer is None:
            self.write()

    def write_in(self, seconds: float) -> None:
        # in a context of its own: the line is of no one request
        self.timer = asyncio.get_running_loop().call_later(seconds, self.write, context=Context())

    def write(self) -> None:
        self.timer = None
        if self.count:
            self.write_line()
            self.write_in(MINUTE)
        elif self.at_end:
            self.at_end()

    def write_line(self) -> None:
        kinds = {"kinds": ", ".join(sorted(self.kinds))} if self.kinds else {}
        self.logger.warning(self.message, extra={**self.newest, "count": self.count, **kinds})
        self.count, self.kinds = 0, set()

    def close(self) -> None:
        """Writes what wasn't told yet."""
        if self.timer:
            self.timer.cancel()
        if self.count:
            self.write_line()
