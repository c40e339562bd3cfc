"""coredis, a client for one Redis or a cluster. Imported where there is a Redis: it costs a third of the start."""

import ssl
import sys
from types import ModuleType
from typing import Any

from settings import Settings


class StandIn(ModuleType):
    """For beartype, which coredis imports, 50 ms, and would call only to check types at run time."""

    __version__ = "0.22"

    def __getattr__(self, name: str) -> Any:
        return lambda function: function


stand_ins = {name: StandIn(name) for name in ("beartype", "beartype.bite", "beartype.door")}
sys.modules |= stand_ins

import coredis  # noqa: E402
from coredis.retry import NoRetryPolicy  # noqa: E402

for name in stand_ins:
    del sys.modules[name]

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
