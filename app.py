"""The service: `python app.py` serves; `python app.py --help` tells what else it does."""

from infra.process import boot  # isort: skip - before the other imports, which take a while

if __name__ == "__main__":
    boot.end_on_signals()

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route

import handlers
import settings as environment
from handlers import accounts, docs, events, health, metrics, root
from infra import fast, logs
from infra.base.errors import StartupError
from infra.http.app import bind, make_app
from infra.http.cors import Cors
from infra.http.declarations import forgotten
from infra.http.frame import Frame
from infra.http.limits import RequestLimits
from infra.http.proxies import ForwardedHeaders
from infra.process.commands import run_migrations, run_task
from infra.process.lifespan import open_parts, open_platform, tasks_of
from infra.process.server import serve
from infra.process.startup import load_or_exit, tell
from settings import Settings

PARTS = [accounts.PART]
TASKS = tasks_of(PARTS, environment.EVENTS)

ROUTES = [
    Route("/",                         root.index,               methods=["GET"]),
    Route("/v1/events",                events.receiver_of(TASKS), methods=["POST"]),  # only with events
    Route("/metrics",                  metrics.read_metrics,     methods=["GET"]),
    Route("/health/live",              health.live,              methods=["GET"]),
    Route("/health/ready",             health.ready,             methods=["GET"]),
    Route("/health/startup",           health.startup,           methods=["GET"]),
    *(route for part in PARTS for route in part.routes),
]  # fmt: skip

DOCS_ROUTES = [
    Route("/openapi.json",             docs.openapi,             methods=["GET"], include_in_schema=False),
    Route("/docs",                     docs.page,                methods=["GET"], include_in_schema=False),
    Route("/docs/{name}",              docs.file,                methods=["GET"], include_in_schema=False),
]  # fmt: skip

USAGE = f"""usage: python app.py            serve on HOST and PORT
       python app.py migrate    upgrade the database's schema, then exit
       python app.py run TYPE   do scheduled work, then exit; TYPE: {" or ".join(TASKS) or "none yet"}
       python app.py --version  show the version
       python settings.py       show every setting, its value and where it came from

Settings come from environment variables only. Exit status: 0 stopped by a signal or done, 64 wrong usage,
69 a server that is needed can't be reached, 70 the code is wrong or a migration failed, 78 a setting is wrong or the
schema is behind."""

log = logs.get_logger("system")


def create_app(settings: Settings) -> Starlette:
    """The ASGI app; opens nothing before its lifespan starts. Raises DeclarationError."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with contextlib.AsyncExitStack() as stack:
            opened = await open_platform(stack, settings)
            await open_parts(stack, opened, PARTS)
            boot.opened()
            yield opened

    routes = bind(ROUTES + DOCS_ROUTES if settings.docs_enabled else ROUTES, PARTS)
    cors = Cors(settings.cors_origins, routes) if settings.cors_origins else None
    middleware = [
        Middleware(ForwardedHeaders, proxies=settings.forwarded_allow_ips),
        Middleware(Frame, debug=settings.debug, cors=cors),
        Middleware(RequestLimits, settings=settings),
    ]
    return make_app(routes, middleware, lifespan)


def configure_logs(settings: Settings) -> logs.LogWriter:
    return logs.configure(
        service=settings.name,
        level=settings.log_level,
        log_format=settings.log_format,
        secrets=settings.secrets,
        token_prefixes=[prefix for part in PARTS for prefix in part.token_prefixes],
        project=settings.google_cloud_project,
        colour=not settings.no_color,
    )


def main(arguments: list[str]) -> int:
    """The exit status; see USAGE."""
    match arguments:
        case ["--help" | "-h"]:
            print(USAGE)
            return 0
        case ["--version"]:
            print(environment.NAME, environment.VERSION)
            return 0
        case []:
            job = None
        case ["migrate"]:
            job = run_migrations
        case ["run", event_type] if event_type in TASKS:
            job = partial(run_task, event_type=event_type, task=TASKS[event_type])
        case _:
            print(USAGE, file=sys.stderr)
            return os.EX_USAGE
    settings = load_or_exit(environment.load, environment.NAME)
    writer = configure_logs(settings)
    for warning in (*settings.warnings, *fast.warnings(), *forgotten(handlers, PARTS)):
        log.warning(warning)
    try:
        # Never closed: closing waits for every task, also for one that a lock on SQLite holds up.
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        runner.run(job(settings) if job else serve(create_app(settings), settings, writer))
    except StartupError as error:
        return tell(error)
    finally:
        writer.flush()
    return 0


def __getattr__(name: str) -> Any:
    """`uvicorn app:app`: the app is made when it is first asked for, so that importing this module reads nothing."""
    if name != "app":
        raise AttributeError(name)
    settings = load_or_exit(environment.load, environment.NAME)
    writer = configure_logs(settings)
    try:
        globals()["app"] = create_app(settings)
    except StartupError as error:
        status = tell(error)
        writer.flush()
        sys.exit(status)
    return globals()["app"]


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # a thread that waits for a lost disk or a lock must not hold up the exit
