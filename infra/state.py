"""What the lifespan opens and every request finds as `request.state`."""

import asyncio

import starlette.datastructures
import starlette.requests

from infra.cache import Cache
from infra.database import Database
from infra.limits import SignInLimits
from infra.metrics import RequestMetrics
from infra.outbox import Outbox
from infra.passwords import Passwords
from infra.tokens import TokenKeys
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
