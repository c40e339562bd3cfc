"""The lifespan: what is opened before the first request, and closed in reverse after the last."""

import asyncio
import contextlib
import os
import time
from collections.abc import Sequence
from typing import Any

from infra.base.background import background
from infra.base.errors import StartupError, Unavailable
from infra.events.outbox import Outbox, deliver_events
from infra.events.tasks import Task, purge_received_events
from infra.http.parts import Part
from infra.http.refusals import Refusals
from infra.http.state import State
from infra.logs import dropped_lines, get_logger
from infra.metrics.counters import Family, Registry, RequestMetrics
from infra.process.startup import retry
from infra.redis.store import Store, open_store
from infra.sql.database import Database, open_database, sqlite_path
from infra.sql.revisions import check_chain
from infra.sql.schema import migrate, missing_migrations
from settings import Settings

Opened = dict[str, Any]


async def open_platform(stack: contextlib.AsyncExitStack, settings: Settings) -> Opened:
    """What `State` declares: the database and Redis at the same time, then what stands on them. Raises StartupError."""
    deadline = time.monotonic() + settings.startup_timeout
    redis = await stack.enter_async_context(open_store(settings))
    database, _ = await asyncio.gather(
        open_current_database(stack, settings, deadline), await_redis(redis, settings, deadline)
    )
    # only with events:
    outbox = Outbox(database, settings)
    if settings.k_sink:
        await stack.enter_async_context(background("delivery of events", outbox.run))
    # end only
    refusals = stack.enter_context(contextlib.closing(Refusals(redis, get_logger("audit"))))
    metrics = RequestMetrics()
    registry = Registry(settings.name.replace("-", "_"))
    for counting in (metrics, database, redis):
        registry.register(counting.collect)
    registry.register(outbox.collect)  # only with events
    registry.register(lambda: process_metrics(settings))
    return {
        "settings": settings,
        "database": database,
        "redis": redis,
        "refusals": refusals,
        "outbox": outbox,  # only with events
        "metrics": metrics,
        "registry": registry,
        "links": {},
        "stopping": asyncio.Event(),
    }


async def open_parts(stack: contextlib.AsyncExitStack, opened: Opened, parts: Sequence[Part]) -> None:
    """Adds to what is opened what each part opens, and the hooks that one part calls in another."""
    called = [name for part in parts for name in part.calls]
    opened["hooks"] = {name: [part.hooks[name] for part in parts if name in part.hooks] for name in called}
    for part in parts:
        opened["links"] |= part.links
        if part.open:
            opened |= await stack.enter_async_context(part.open(State(opened)))


def tasks_of(parts: Sequence[Part], prefix: str) -> dict[str, Task]:
    """Scheduled work by the type of the event that asks for it: the parts' own, and the platform's."""
    return {
        **{name: task for part in parts for name, task in part.tasks.items()},
        f"{prefix}.events.deliver": deliver_events,  # only with events
        f"{prefix}.events.purge": purge_received_events,  # only with events
    }


async def open_current_database(stack: contextlib.AsyncExitStack, settings: Settings, deadline: float) -> Database:
    """Raises StartupError: 69 when it can't be reached in time, 78 when its schema is behind the code."""
    check_chain()
    database = await retry(database_name(settings), lambda: open_database(settings), deadline)
    stack.push_async_callback(database.close)
    if missing := await missing_migrations(database):
        if settings.mysql_enabled:
            text = (
                f"the database's schema is behind this code, without {', '.join(missing)}: run `python app.py migrate`"
            )
            raise StartupError(os.EX_CONFIG, text)
        await upgrade(settings)
    return database


async def await_redis(redis: Store, settings: Settings, deadline: float) -> None:
    """Raises StartupError 69."""
    if redis.enabled:
        await retry(f"Redis at {settings.redis_host}:{settings.redis_port}", redis.ping, deadline)


async def upgrade(settings: Settings) -> None:
    """Raises StartupError: 69, or 70 when a migration fails."""
    try:
        await asyncio.to_thread(migrate, settings)
    except Unavailable as error:
        raise StartupError(os.EX_UNAVAILABLE, f"{database_name(settings)} can't be migrated: {error.cause}") from None


def database_name(settings: Settings) -> str:
    if not settings.mysql_enabled:
        return f"the database at {sqlite_path(settings)}"
    return f"the database at {settings.mysql_unix_socket or f'{settings.mysql_host}:{settings.mysql_port}'}"


def process_metrics(settings: Settings) -> list[Family]:
    import platform  # noqa: PLC0415 - the first scrape pays for it

    labels = {
        "version": settings.version,
        "revision": settings.k_revision or "",
        "python": platform.python_version(),
    }
    return [
        Family(
            "counter", "{service}_log_lines_dropped", "Log lines that could not be written", [({}, dropped_lines())]
        ),
        Family("gauge", "{service}_build_info", "What runs", [(labels, 1)]),
    ]
