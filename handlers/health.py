"""Probes: live, ready, startup."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Literal

from msgspec import Meta, Struct
from starlette.responses import Response

from infra.base.errors import Unavailable, describe
from infra.http.bodies import json_response
from infra.http.operations import operation
from infra.http.state import Request
from infra.logs import get_logger

PING_TIMEOUT = 0.75  # seconds; a kubelet gives a probe 1 s

log = get_logger("system")


class Check(Struct):
    status: Literal["ok", "unavailable"]
    duration_ms: Annotated[float, Meta(examples=[0.4])]


class Health(Struct):
    status: Literal["ok", "degraded", "unavailable", "stopping"]
    checks: Annotated[dict[str, Check], Meta(description="of the database and of Redis, when readiness is asked for")]


@operation()
async def live(request: Request) -> Health:
    """Tell whether the event loop turns.

    Other systems are none of a liveness probe's business.
    """
    return Health("ok", {})


@operation()
async def startup(request: Request) -> Health:
    """Tell whether the lifespan has opened everything: before that, nothing listens."""
    return Health("ok", {})


@operation(answers={200: Health, 503: Health})
async def ready(request: Request) -> Response:
    """Tell whether to send requests here.

    200 ok, or degraded when only Redis is lost; 503 when the database is lost or the process is stopping.
    """
    state = request.state
    pings: dict[str, Callable[[], Awaitable[object]]] = {"database": lambda: state.database.fetch_one("SELECT 1")}
    if state.redis.enabled:
        pings["redis"] = state.redis.ping
    checks = dict(zip(pings, await asyncio.gather(*map(measure, pings, pings.values())), strict=True))
    health = Health("ok", checks)
    if state.stopping.is_set():
        health.status = "stopping"
    elif checks["database"].status != "ok":
        health.status = "unavailable"
    elif any(check.status != "ok" for check in checks.values()):
        health.status = "degraded"
    return json_response(health, 200 if health.status in ("ok", "degraded") else 503)


async def measure(name: str, ping: Callable[[], Awaitable[object]]) -> Check:
    started = time.perf_counter()
    check = Check("ok", 0)
    try:
        async with asyncio.timeout(PING_TIMEOUT):
            await ping()
    except (Unavailable, TimeoutError) as error:
        cause = error.cause if isinstance(error, Unavailable) else describe(error)
        log.warning("probe: %s unavailable: %s", name, cause)
        check.status = "unavailable"
    check.duration_ms = round((time.perf_counter() - started) * 1000, 1)
    return check
