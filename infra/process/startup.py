"""Start-up: what can't be had yet is tried again until STARTUP_TIMEOUT."""

import asyncio
import os
import random
import re
import sys
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from infra.base.errors import NO_ANSWER, StartupError, Unavailable
from infra.base.variables import SettingsError
from infra.logs import configure, get_logger

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 3.0  # seconds

# A server's own words about a client's certificate; of a TLS 1.2 one the last, when it asks for one and gets none.
ALERT = r"\[SSL: \w*ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE)"
# Causes that waiting doesn't mend, as patterns, and the variables to look at.
REFUSALS = {
    r"^MYSQL_INIT_COMMAND": "MYSQL_INIT_COMMAND",
    r"\(1049, ": "MYSQL_DATABASE",
    r"\(1044, ": "MYSQL_DATABASE, and what MYSQL_USERNAME was granted",
    r"\((1045|1698), ": "MYSQL_USERNAME and MYSQL_PASSWORD, MYSQL_SSL_MODE and MYSQL_SSL_CERT",
    r"MYSQL_SSL_MODE|\(3159, ": "MYSQL_SSL_MODE",  # 3159: the server has require_secure_transport
    f"MySQL.* {ALERT}": "MYSQL_SSL_CERT and MYSQL_SSL_KEY",
    ALERT: "REDIS_SSL_CERT and REDIS_SSL_KEY",
    r"MySQL.* CERTIFICATE_VERIFY_FAILED": "MYSQL_SSL_CA and MYSQL_HOST",
    r"CERTIFICATE_VERIFY_FAILED|NO_CERTIFICATE_OR_CRL_FOUND": "REDIS_SSL_CA and REDIS_HOST",
    r"^Authentication(Failure|Required)?Error": "REDIS_USERNAME and REDIS_PASSWORD",
    r"^(CommandRefused|AuthorizationError|UnknownCommandError)": "the commands that docs/redis.md asks for",
    r"DB index is out of range": "REDIS_DB",
    r"cluster support disabled": "REDIS_CLUSTER",
}

Result = TypeVar("Result")

log = get_logger("system")


def load_or_exit(load: Callable[[], Result], service: str) -> Result:
    """The settings; or a line for all that is wrong with them, in the format that was asked for, and exit status 78."""
    try:
        return load()
    except SettingsError as error:
        found = error.values
        writer = configure(
            service=service,
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


def tell(error: StartupError) -> int:
    """Its lines, in the log; the exit status."""
    for message in error.messages:
        log.critical(message)
    return error.status


async def retry(name: str, attempt: Callable[[], Awaitable[Result]], deadline: float) -> Result:
    """The attempt's result; with backoff and jitter until the `deadline` (monotonic seconds), then StartupError 69.

    A server that refuses what it is asked with, a password or a name, is not asked again: StartupError 78.
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
        if variables := at_fault(cause):
            raise StartupError(os.EX_CONFIG, f"{name} can't be used: {cause}; look at {variables}")
        if pause == FIRST_PAUSE:
            log.info("waiting for %s: %s", name, cause)
        if time.monotonic() + pause >= deadline:
            raise StartupError(os.EX_UNAVAILABLE, f"{name} can't be reached: {cause}")
        await asyncio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311 - jitter
        pause = min(pause * 2, LONGEST_PAUSE)


def at_fault(cause: str) -> str:
    return next((variables for pattern, variables in REFUSALS.items() if re.search(pattern, cause)), "")
