"""What happens to MariaDB, to Redis and to the wires to them while they are in use, and the end of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.support.proxy import Proxy
from tests.support.servers import MariaDB, Redis


@dataclass
class Servers:
    """Own servers, a proxy before each."""

    mariadb: MariaDB
    redis: Redis
    to_mariadb: Proxy = field(init=False)
    to_redis: Proxy = field(init=False)

    def __post_init__(self) -> None:
        self.to_mariadb, self.to_redis = Proxy(self.mariadb.port), Proxy(self.redis.port)

    def environment(self, database: str) -> dict[str, str]:
        """The settings of a service that reaches both through the proxies."""
        env = self.mariadb.environment(database) | self.redis.environment()
        return env | {"MYSQL_PORT": str(self.to_mariadb.port), "REDIS_PORT": str(self.to_redis.port)}

    def close(self) -> None:
        self.to_mariadb.close()
        self.to_redis.close()

    def kill_connections(self) -> None:
        self.mariadb.sql("KILL USER berth")

    def max_connections(self, count: int) -> None:
        """In one statement: while more are open than that, nobody can ask for the second one."""
        self.mariadb.sql(f"BEGIN NOT ATOMIC SET GLOBAL max_connections = {count}; KILL USER berth; END")

    def restart_mariadb(self) -> None:
        self.mariadb.kill()
        self.mariadb.start()

    def restart_redis(self) -> None:
        self.redis.kill()
        self.redis.start()


def nothing() -> None: ...


def troubles(servers: Servers) -> dict[str, tuple[Callable[[], object], Callable[[], object]]]:
    """By name: how each begins, and how it ends."""
    mariadb, redis, to_mariadb, to_redis = servers.mariadb, servers.redis, servers.to_mariadb, servers.to_redis
    return {
        "MariaDB killed": (mariadb.kill, mariadb.start),
        "MariaDB's connections killed": (servers.kill_connections, nothing),
        "MariaDB paused": (mariadb.pause, mariadb.resume),
        "MariaDB read-only": (
            lambda: mariadb.sql("SET GLOBAL read_only = 1"),
            lambda: mariadb.sql("SET GLOBAL read_only = 0"),
        ),
        "MariaDB full": (lambda: servers.max_connections(10), lambda: servers.max_connections(151)),
        "wire to MariaDB cut": (to_mariadb.cut, nothing),
        "wire to MariaDB stalled": (to_mariadb.stall, to_mariadb.resume),
        "wire to MariaDB slow": (lambda: to_mariadb.delay(0.1), lambda: to_mariadb.delay(0)),
        "answer of MariaDB truncated": (lambda: to_mariadb.truncate(30), nothing),
        "Redis killed": (redis.kill, redis.start),
        "Redis's connections killed": (lambda: redis.command("CLIENT", "KILL", "TYPE", "normal"), nothing),
        "Redis paused": (redis.pause, redis.resume),
        "Redis read-only": (
            lambda: redis.command("REPLICAOF", "127.0.0.1", "1"),
            lambda: redis.command("REPLICAOF", "NO", "ONE"),
        ),
        "Redis full": (
            lambda: redis.command("CONFIG", "SET", "maxmemory", "1"),
            lambda: redis.command("CONFIG", "SET", "maxmemory", "0"),
        ),
        "wire to Redis cut": (to_redis.cut, nothing),
        "wire to Redis stalled": (to_redis.stall, to_redis.resume),
        "answer of Redis truncated": (lambda: to_redis.truncate(3), nothing),
    }


def seconds_until(condition: Callable[[], bool], within: float) -> float:
    started = time.monotonic()
    while not condition():
        if time.monotonic() - started > within:
            return float("inf")
        time.sleep(0.05)
    return time.monotonic() - started
