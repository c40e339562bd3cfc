"""Start-up: what can't be had yet is tried again; what can't be had at all ends the process with an exit status."""

import asyncio
import os
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from infra.base.variables import SettingsError
from infra.http.problems import NO_ANSWER, Unavailable
from infra.logs import configure, get_logger

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds

Result = TypeVar("Result")

log = get_logger("system")


class StartupError(Exception):
    """`status` is the exit status, one of sysexits.h."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def load_or_exit(load: Callable[[], Result]) -> Result:
    """The settings; or a line for all that is wrong with them, in the format that was asked for, and exit status 78."""
    try:
        return load()
    except SettingsError as error:
        found = error.values
        writer = configure(
            level="INFO",
            log_format=found.get("LOG_FORMAT") or "json",
            project=found.get("GOOGLE_CLOUD_PROJECT"),
            colour=not found.get("NO_COLOR"),
        )
        for warning in error.warnings:
            log.warning(warning)
        for problem in error.problems:
            log.critical(problem.text, extra={"variable": problem.variable})
        writer.flush()
        sys.exit(os.EX_CONFIG)


async def retry(
    name: str,
    attempt: Callable[[], Awaitable[Result]],
    deadline: float,
    refusals: Mapping[str, str] | None = None,
) -> Result:
    """The attempt's result; with backoff and jitter until the `deadline` (monotonic seconds), then StartupError 69.

    `refusals` are patterns of causes that waiting doesn't mend, and the variables at fault: StartupError 78 at once.
    """
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
        for pattern, variables in (refusals or {}).items():
            if re.search(pattern, cause):
                raise StartupError(os.EX_CONFIG, f"{name} refuses {variables}: {cause}")
        if pause == FIRST_PAUSE:
            log.info("waiting for %s: %s", name, cause)
        if time.monotonic() + pause >= deadline:
            raise StartupError(os.EX_UNAVAILABLE, f"{name} can't be reached: {cause}")
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
        pause = min(pause * 2, LONGEST_PAUSE)
