"""Berth: accounts and sessions. `python app.py` serves; `python app.py --help` tells what else it does."""

import gc
import os
import signal
import sys

gc.disable()  # until the lifespan has opened everything: imports make no garbage, and looking for it costs a fifth
if __name__ == "__main__":  # before the imports, which take a while: PID 1 ignores a signal that it has no handler for
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: os._exit(128 + number if sys.argv[1:] else 0))

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.routing import Route
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

import settings as environment
from handlers import docs, events, health, metrics, root
from handlers.accounts import accounts, introspection, sessions
from infra import logs
from infra.base.background import background
from infra.redis.cache import Cache, open_cache
from infra.http.cors import Cors
from infra.sql.database import Database, open_database, sqlite_path
from handlers.accounts.sign_in_limits import SignInLimits
from infra.metrics.counters import RequestMetrics
from infra.events.outbox import Outbox
from handlers.accounts.passwords import Passwords
from infra.http.problems import Unavailable
from infra.http.limits import RequestLimits
from infra.http.frame import Frame
from infra.http.routing import Router
from infra.sql.schema import is_current, migrate
from infra.process.server import serve
from infra.process.startup import StartupError, load_or_exit, retry
from handlers.accounts.tokens import TokenKeys
from settings import Settings

USAGE = f"""usage: python app.py            serve on HOST and PORT
       python app.py migrate    upgrade the database's schema, then exit
       python app.py run TYPE   do the scheduled work of an event's type, then exit; TYPE: {" or ".join(events.TASKS)}
       python app.py --version  tell the version
       python settings.py       show every setting, its value and where it came from

Settings come from environment variables only. Exit status: 0 stopped by a signal or done, 64 wrong usage,
69 a server that is needed can't be reached, 78 a setting is wrong or the schema is behind."""

# Objects. At 700, Python's own, what 32 requests hold at the same time makes it look for garbage again and again.
GARBAGE_THRESHOLD = 10_000

log = logs.get_logger("system")

ROUTES = [
    Route("/",                         root.index,               methods=["GET"]),
    Route("/v1/auth/register",         accounts.register,        methods=["POST"]),
    Route("/v1/auth/login",            sessions.log_in,          methods=["POST"]),
    Route("/v1/auth/refresh",          sessions.refresh,         methods=["POST"]),
    Route("/v1/auth/logout",           sessions.log_out,         methods=["POST"]),
    Route("/v1/auth/me",               accounts.read_me,         methods=["GET"]),
    Route("/v1/auth/me",               accounts.update_me,       methods=["PATCH"]),
    Route("/v1/auth/me",               accounts.delete_me,       methods=["DELETE"]),
    Route("/v1/auth/me/password",      accounts.change_password, methods=["PUT"]),
    Route("/v1/auth/sessions",         sessions.list_sessions,   methods=["GET"]),
    Route("/v1/auth/sessions/{id}",    sessions.revoke_session,  methods=["DELETE"]),
    Route("/v1/auth/introspect",       introspection.introspect, methods=["POST"]),
    Route("/v1/events",                events.receive_event,     methods=["POST"]),
    Route("/metrics",                  metrics.read_metrics,     methods=["GET"]),
    Route("/health/live",              health.live,              methods=["GET"]),
    Route("/health/ready",             health.ready,             methods=["GET"]),
    Route("/health/startup",           health.startup,           methods=["GET"]),
]  # fmt: skip

DOCS_ROUTES = [
    Route("/openapi.json",             docs.openapi,             methods=["GET"]),
    Route("/docs",                     docs.page,                methods=["GET"]),
    Route("/docs/{name}",              docs.file,                methods=["GET"]),
]  # fmt: skip


def create_app(settings: Settings) -> Starlette:
    """The ASGI app; opens nothing before its lifespan starts."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        deadline = time.monotonic() + settings.startup_timeout
        async with contextlib.AsyncExitStack() as stack:
            cache = await stack.enter_async_context(open_cache(settings))
            database, _ = await asyncio.gather(
                open_current_database(stack, settings, deadline), await_cache(cache, settings, deadline)
            )
            passwords = stack.enter_context(contextlib.closing(Passwords()))
            outbox = Outbox(database, settings)
            if settings.k_sink:
                await stack.enter_async_context(background("delivery of events", outbox.run))
            gc.freeze()  # modules and code are never looked at again
            gc.set_threshold(GARBAGE_THRESHOLD)
            gc.enable()
            yield {
                "settings": settings,
                "database": database,
                "redis": cache,
                "limits": SignInLimits(cache, settings.login_rate_limit),
                "passwords": passwords,
                "token_keys": TokenKeys(settings.secret_key, settings.secret_key_previous, settings.access_token_ttl),
                "outbox": outbox,
                "metrics": RequestMetrics(),
                "stopping": asyncio.Event(),
            }

    middleware = [
        Middleware(ProxyHeadersMiddleware, trusted_hosts=settings.forwarded_allow_ips),
        Middleware(Frame, debug=settings.debug),
        *([Middleware(Cors, origins=settings.cors_origins)] if settings.cors_origins else []),
        Middleware(RequestLimits, settings=settings),
    ]
    app = Starlette()
    app.router = Router(ROUTES + DOCS_ROUTES if settings.docs_enabled else ROUTES, lifespan=lifespan)
    app.middleware_stack = app.router
    # Without Starlette's own two: the router answers what handlers raise, and Frame is the last net.
    for kind, arguments, options in reversed(middleware):
        app.middleware_stack = kind(app.middleware_stack, *arguments, **options)
    return app


async def open_current_database(stack: contextlib.AsyncExitStack, settings: Settings, deadline: float) -> Database:
    """Raises StartupError: 69 when it can't be reached in time, 78 when its schema is behind the code."""
    database = await retry(database_name(settings), lambda: open_database(settings), deadline)
    stack.push_async_callback(database.close)
    if not await is_current(database):
        if settings.mysql_enabled:
            raise StartupError(os.EX_CONFIG, "the database's schema is behind this code: run `python app.py migrate`")
        await upgrade(settings)
    return database


def database_name(settings: Settings) -> str:
    if not settings.mysql_enabled:
        return f"the database at {sqlite_path(settings)}"
    return f"the database at {settings.mysql_unix_socket or f'{settings.mysql_host}:{settings.mysql_port}'}"


async def await_cache(cache: Cache, settings: Settings, deadline: float) -> None:
    """Raises StartupError 69."""
    if cache.enabled:
        await retry(f"Redis at {settings.redis_host}:{settings.redis_port}", cache.ping, deadline)


async def run_migrations(settings: Settings) -> None:
    """Waits for the database as serving does. Raises StartupError 69."""
    deadline = time.monotonic() + settings.startup_timeout
    database = await retry(database_name(settings), lambda: open_database(settings), deadline)
    await database.close()
    await upgrade(settings)


async def run_task(settings: Settings, event_type: str) -> None:
    """Waits for the database as serving does. Raises StartupError."""
    gc.enable()
    deadline = time.monotonic() + settings.startup_timeout
    async with contextlib.AsyncExitStack() as stack:
        database = await open_current_database(stack, settings, deadline)
        try:
            await events.TASKS[event_type](database, settings)
        except Unavailable as error:
            raise StartupError(os.EX_UNAVAILABLE, f"{event_type} failed: {error.detail} {error.cause}") from None


async def upgrade(settings: Settings) -> None:
    """Raises StartupError 69."""
    try:
        await asyncio.to_thread(migrate, settings)
    except Unavailable as error:
        raise StartupError(os.EX_UNAVAILABLE, f"{database_name(settings)} can't be migrated: {error.cause}") from None


def configure(settings: Settings) -> logs.LogWriter:
    return logs.configure(
        level=settings.log_level,
        log_format=settings.log_format,
        secrets=settings.secrets,
        project=settings.google_cloud_project,
        colour=not settings.no_color,
    )


def main(arguments: list[str]) -> int:
    """The exit status; see USAGE."""
    if arguments in (["--help"], ["-h"]):
        print(USAGE)
        return 0
    if arguments == ["--version"]:
        print(Settings.name, Settings.version)
        return 0
    match arguments:
        case []:
            job = None
        case ["migrate"]:
            job = run_migrations
        case ["run", event_type] if event_type in events.TASKS:
            job = partial(run_task, event_type=event_type)
        case _:
            print(USAGE, file=sys.stderr)
            return os.EX_USAGE
    settings = load_or_exit(environment.load)
    writer = configure(settings)
    for warning in settings.warnings:
        log.warning(warning)
    try:
        # Never closed: closing waits for every task, also for one that a lock on SQLite holds up.
        runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        runner.run(job(settings) if job else serve(create_app(settings), settings, writer))
    except StartupError as error:
        log.critical(str(error))
        return error.status
    finally:
        writer.flush()
    return 0


def __getattr__(name: str) -> Any:
    """`uvicorn app:app`: the app is made when it is first asked for, so that importing this module reads nothing."""
    if name != "app":
        raise AttributeError(name)
    settings = load_or_exit(environment.load)
    configure(settings)
    globals()["app"] = create_app(settings)
    return globals()["app"]


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # a thread that waits for a lost disk or a lock must not hold up the exit
