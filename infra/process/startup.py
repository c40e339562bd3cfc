"""Start-up: what can't be had yet is tried again until STARTUP_TIMEOUT."""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from infra.base.errors import NO_ANSWER, StartupError, Unavailable
from infra.logs import get_logger

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds

Result = TypeVar("Result")

log = get_logger("system")


async def retry(name: str, attempt: Callable[[], Awaitable[Result]], deadline: float) -> Result:
    """The attempt's result; with backoff and jitter until the `deadline` (monotonic seconds), then StartupError 69."""
    pause = FIRST_PAUSE
    cause = NO_ANSWER
    while True:
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await attempt()
        except Unavailable as error:
            cause = error.cause
        except TimeoutError:
            pass
        if pause == FIRST_PAUSE:
            log.info("waiting for %s: %s", name, cause)
        if time.monotonic() + pause >= deadline:
            raise StartupError(os.EX_UNAVAILABLE, f"{name} can't be reached: {cause}")
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
        pause = min(pause * 2, LONGEST_PAUSE)
