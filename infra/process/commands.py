"""What `python app.py` does beside serving; it waits for the database as serving does."""

import contextlib
import gc
import os
import time

from infra.base.errors import StartupError, Unavailable
from infra.events.tasks import Task
from infra.process.lifespan import database_name, open_current_database, upgrade
from infra.process.startup import retry
from infra.sql.database import open_database
from infra.sql.revisions import check_chain
from settings import Settings


async def run_migrations(settings: Settings) -> None:
    """Raises StartupError 69."""
    deadline = time.monotonic() + settings.startup_timeout
    check_chain()
    database = await retry(database_name(settings), lambda: open_database(settings), deadline)
    await database.close()
    await upgrade(settings)


async def run_task(settings: Settings, event_type: str, task: Task) -> None:
    """Raises StartupError."""
    gc.enable()
    deadline = time.monotonic() + settings.startup_timeout
    async with contextlib.AsyncExitStack() as stack:
        database = await open_current_database(stack, settings, deadline)
        try:
            await task(database, settings)
        except Unavailable as error:
            raise StartupError(os.EX_UNAVAILABLE, f"{event_type} failed: {error.detail} {error.cause}") from None
