"""Background tasks: they live as long as the lifespan that started them, and start again after a crash."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from infra.logs import get_logger

PAUSE = 1  # seconds before a crashed task starts again
STOP_TIMEOUT = 1  # seconds that a cancelled task may take

log = get_logger("task")


@asynccontextmanager
async def background(name: str, work: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """`work` runs while the block does."""
    task = asyncio.create_task(run(name, work), name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=STOP_TIMEOUT)


async def run(name: str, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except Exception:
            log.exception("%s crashed and starts again", name)
        await asyncio.sleep(PAUSE)
