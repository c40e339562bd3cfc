"""What the lifespan opens and every request finds as `request.state`. A part adds its own (`handlers/*/state.py`)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import starlette.datastructures
import starlette.requests

from infra.events.outbox import Outbox
from infra.http.refusals import Refusals
from infra.metrics.counters import Registry, RequestMetrics
from infra.redis.store import Store
from infra.sql.database import Connection, Database
from settings import Settings

Hook = Callable[[Connection, str], Awaitable[None]]  # within a transaction; an id


class State(starlette.datastructures.State):
    settings: Settings
    database: Database
    redis: Store
    refusals: Refusals
    outbox: Outbox  # only with events
    metrics: RequestMetrics
    registry: Registry
    links: dict[str, str]  # what GET / shows
    hooks: Mapping[str, Sequence[Hook]]  # of all parts, by the name that one of them calls
    stopping: asyncio.Event  # set at SIGTERM


Request = starlette.requests.Request[State]
