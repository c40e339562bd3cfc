"""`asyncio.timeout()` for many blocks of one length, with one timer of the event loop for all of them.

They end in the order in which they began, so the timer only has to know the first. A timer for each block costs more
than all else that a health request does between parser and answer.
"""

import asyncio
import time
from types import TracebackType


class TimeLimit:
    """`with limit():` around what may take `seconds`; then its task is cancelled there, and TimeoutError raised."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.loop: asyncio.AbstractEventLoop | None = None
        self.running: dict[Block, None] = {}  # in the order of their ends
        self.timer: asyncio.TimerHandle | None = None

    def __call__(self) -> "Block":
        return Block(self)

    def running_loop(self) -> asyncio.AbstractEventLoop:
        """Kept, because Python 3.11 asks the kernel for the process's id each time that it is asked for the loop."""
        if self.loop is None:
            self.loop = asyncio.get_running_loop()
        return self.loop

    def set_timer(self, seconds: float) -> None:
        self.timer = self.running_loop().call_later(seconds, self.on_timer)

    def on_timer(self) -> None:
        self.timer = None
        for block in list(self.running):
            rest = block.end - time.monotonic()
            if rest > 0:
                self.set_timer(rest)
                return
            del self.running[block]
            block.expire()


class Block:
    """As with `asyncio.timeout()`: a cancellation from elsewhere stays one."""

    __slots__ = ("cancelling", "end", "expired", "limit", "task")

    def __init__(self, limit: TimeLimit) -> None:
        self.limit = limit
        self.expired = False

    def __enter__(self) -> "Block":
        task = asyncio.current_task(self.limit.running_loop())
        assert task is not None  # noqa: S101 - else there is nothing to cancel
        self.task = task
        self.cancelling = task.cancelling()
        self.end = time.monotonic() + self.limit.seconds
        self.limit.running[self] = None
        if self.limit.timer is None:
            self.limit.set_timer(self.limit.seconds)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.expired:
            del self.limit.running[self]
        elif self.task.uncancel() <= self.cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expire(self) -> None:
        self.expired = True
        self.task.cancel()
