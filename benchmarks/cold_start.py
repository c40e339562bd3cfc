"""From the process's start to its first answers, and how much of that is importing what has to be imported."""

import subprocess
import time

from benchmarks.data import World
from benchmarks.subjects import ALL, BARE, BERTH, BERTH_PYTHON, ROOT, Service, Subject

EMBEDDED = BERTH._replace(name="embedded", title="Berth, SQLite and no Redis")
OPTIMIZED = BERTH._replace(name="optimized", title="Berth, python -OO", options=("-OO",))
# What the service can't do without: the packages, by the modules that it uses, without what those don't call.
PACKAGES = """import gc; gc.disable()
import starlette.applications, starlette.routing, uvicorn, uvloop, httptools
import uvicorn.protocols.http.httptools_impl, uvicorn.middleware.proxy_headers, uvicorn.lifespan.off
import msgspec, pythonjsonlogger.msgspec, jwt, environs, infra.redis.client, infra.fast.lean_imports, os
with infra.fast.lean_imports.without("sqlalchemy"): import databases
import aiomysql
os._exit(0)"""  # without taking them down

Figures = dict[str, dict[str, list[float]]]


def measure(world: World, rounds: int) -> Figures:
    """Milliseconds to the first answer of /health/live and of /v1/auth/me, CPU until then, and idle PSS in MiB."""
    figures: Figures = {}
    for number in range(rounds + 1):  # the first writes byte code and warms the disk's cache; it doesn't count
        for subject in [*ALL, OPTIMIZED, EMBEDDED]:
            found = start(world, subject)
            for name, value in found.items() if number else ():
                figures.setdefault(subject.name, {}).setdefault(name, []).append(value)
        if number:
            figures.setdefault("imports", {}).setdefault("health", []).append(time_imports())
    return figures


def start(world: World, subject: Subject) -> dict[str, float]:
    env = world.env(redis=True)
    if subject == EMBEDDED:
        env = {name: value for name, value in env.items() if not name.startswith(("MYSQL", "REDIS"))}
    with Service(subject, env) as service:
        found = {"health": service.first_answer("/health/live") * 1000}
        if subject not in (BARE, EMBEDDED):
            found["me"] = service.first_answer("/v1/auth/me", world.logins[0].access_token) * 1000
        return {**found, "cpu": service.cpu() * 1000, "pss": service.pss()}


def time_imports() -> float:
    started = time.perf_counter()
    subprocess.run([BERTH_PYTHON, "-c", PACKAGES], cwd=ROOT, check=True, env={})
    return (time.perf_counter() - started) * 1000
