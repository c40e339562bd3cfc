"""Probes: live, ready, startup."""

import asyncio
import time
from collections.abc import Awaitable, Callable

from msgspec import Struct
from starlette.responses import Response

from infra.bodies import json_response
from infra.logs import get_logger
from infra.problems import Unavailable, describe
from infra.state import Request

PING_TIMEOUT = 0.75  # seconds; a kubelet gives a probe 1 s

log = get_logger("system")


class Check(Struct):
    status: str
    duration_ms: float


class Health(Struct):
    status: str
    checks: dict[str, Check]


async def live(request: Request) -> Response:
    """200 as long as the event loop turns; other systems are none of a liveness probe's business."""
    return health(Health("ok", {}))


async def startup(request: Request) -> Response:
    """200: the server listens only when the lifespan has opened everything."""
    return health(Health("ok", {}))


async def ready(request: Request) -> Response:
    """200 ok, or degraded when only Redis is lost; 503 when the database is lost or the process is stopping."""
    state = request.state
    pings: dict[str, Callable[[], Awaitable[object]]] = {"database": lambda: state.database.fetch_one("SELECT 1")}
    if state.redis.enabled:
        pings["redis"] = state.redis.ping
    checks = dict(zip(pings, await asyncio.gather(*map(check, pings, pings.values())), strict=True))
    if state.stopping.is_set():
        status = "stopping"
    elif checks["database"].status != "ok":
        status = "unavailable"
    else:
        status = "ok" if all(check.status == "ok" for check in checks.values()) else "degraded"
    return health(Health(status, checks))


async def check(name: str, ping: Callable[[], Awaitable[object]]) -> Check:
    started = time.perf_counter()
    try:
        async with asyncio.timeout(PING_TIMEOUT):
            await ping()
        status = "ok"
    except (Unavailable, TimeoutError) as error:
        cause = error.cause if isinstance(error, Unavailable) else describe(error)
        log.warning("probe: %s unavailable: %s", name, cause)
        status = "unavailable"
    return Check(status, round((time.perf_counter() - started) * 1000, 1))


def health(content: Health) -> Response:
    return json_response(content, 200 if content.status in ("ok", "degraded") else 503)
