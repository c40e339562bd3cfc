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
        self.running: dict[Block, None] = {}  # in the order of their ends
        self.timer: asyncio.TimerHandle | None = None

    def __call__(self) -> "Block":
        return Block(self)

    def begin(self, block: "Block") -> None:
        self.running[block] = None
        if self.timer is None:
            self.timer = asyncio.get_running_loop().call_later(self.seconds, self.on_timer)

    def on_timer(self) -> None:
        self.timer = None
        for block in list(self.running):
            rest = block.end - time.monotonic()
            if rest > 0:
                self.timer = asyncio.get_running_loop().call_later(rest, self.on_timer)
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
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - else there is nothing to cancel
        self.task = task
        self.cancelling = task.cancelling()
        self.end = time.monotonic() + self.limit.seconds
        self.limit.begin(self)
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
