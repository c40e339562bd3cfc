"""What the lifespan opens and every request finds as `request.state`. A part adds its own (`handlers/*/state.py`)."""

import asyncio

import starlette.datastructures
import starlette.requests

from infra.events.outbox import Outbox
from infra.events.tasks import Task
from infra.metrics.counters import Registry, RequestMetrics
from infra.redis.store import Store
from infra.sql.database import Database
from settings import Settings


class State(starlette.datastructures.State):
    settings: Settings
    database: Database
    redis: Store
    outbox: Outbox  # only with events
    metrics: RequestMetrics
    registry: Registry
    links: dict[str, str]  # what GET / shows
    tasks: dict[str, Task]  # by the type of the event that asks for it
    stopping: asyncio.Event  # set at SIGTERM


Request = starlette.requests.Request[State]
