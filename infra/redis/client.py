"""coredis, a client for one Redis or a cluster. Imported where there is a Redis: it costs a third of the start."""

import asyncio
import ssl
from contextlib import nullcontext, suppress
from typing import Any

from infra import fast
from infra.base.certificates import load_pair
from infra.fast import lean_imports
from settings import Settings

# beartype would only check types at run time.
with lean_imports.without("beartype") if fast.enabled("lean_coredis") else nullcontext():
    import coredis
    from coredis.retry import NoRetryPolicy

Client = Any  # coredis.Redis[bytes] or coredis.RedisCluster[bytes], which share only a private base


def new_client(settings: Settings) -> Client:
    """A client without retries, which would repeat writes. Whoever waits for it sets the time-out."""
    options: dict[str, Any] = {
        "username": settings.redis_username,
        "password": settings.redis_password,
        "connect_timeout": settings.redis_timeout,
        "max_connections": settings.redis_max_connections,
        "retry_policy": NoRetryPolicy(),
        "verify_version": False,
    }
    if settings.redis_ssl:
        options["ssl_context"] = tls_context(settings)
    if settings.redis_cluster:  # without the check, which asks for CONFIG: the cluster says itself when it is down
        return coredis.RedisCluster(settings.redis_host, settings.redis_port, skip_full_coverage_check=True, **options)
    return coredis.Redis(settings.redis_host, settings.redis_port, settings.redis_db, **options)


def tls_context(settings: Settings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.redis_ssl_ca)
    load_pair(context, settings.redis_ssl_cert, settings.redis_ssl_key)
    return context


async def first_words(settings: Settings) -> str:
    """What Redis says unasked to whom it hangs up on, full or in its protected mode; the client may miss it."""
    with suppress(OSError, ValueError, TimeoutError):
        async with asyncio.timeout(settings.redis_timeout):
            tls = tls_context(settings) if settings.redis_ssl else None
            reader, writer = await asyncio.open_connection(settings.redis_host, settings.redis_port, ssl=tls)
            try:
                return (await reader.readline()).decode(errors="replace").strip().removeprefix("-")
            finally:
                writer.close()
    return ""
