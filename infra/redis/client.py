"""coredis, a client for one Redis or a cluster. Imported where there is a Redis: it costs a third of the start."""

import ssl
from contextlib import nullcontext
from typing import Any

from infra import fast
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
        options["ssl_context"] = ssl.create_default_context(cafile=settings.redis_ssl_ca)
    if settings.redis_cluster:
        return coredis.RedisCluster(settings.redis_host, settings.redis_port, **options)
    return coredis.Redis(settings.redis_host, settings.redis_port, settings.redis_db, **options)
