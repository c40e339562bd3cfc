"""What the lifespan opens and every request finds as `request.state`."""

import asyncio

import starlette.datastructures
import starlette.requests

from infra.redis.cache import Cache
from infra.sql.database import Database
from handlers.accounts.sign_in_limits import SignInLimits
from infra.metrics.counters import RequestMetrics
from infra.events.outbox import Outbox
from handlers.accounts.passwords import Passwords
from handlers.accounts.tokens import TokenKeys
from settings import Settings


class State(starlette.datastructures.State):
    settings: Settings
    database: Database
    redis: Cache
    limits: SignInLimits
    passwords: Passwords
    token_keys: TokenKeys
    outbox: Outbox
    metrics: RequestMetrics
    stopping: asyncio.Event  # set at SIGTERM


Request = starlette.requests.Request[State]
