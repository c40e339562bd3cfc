"""MySQL, or SQLite, through `databases`: reads, writes, transactions, a replica for reads that may lag."""

import math
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from infra.base.errors import Duplicate, Unavailable
from infra.logs import get_logger
from infra.metrics.counters import Family
from infra.sql.mysql import connection_options, mysql_url
from infra.sql.pool import Connection, ConnectionLost, Pool, Row, Values
from settings import Settings

__all__ = ["Connection", "Database", "Row", "open_database", "sqlite_path"]

REPLICA_PAUSE = 5  # seconds without a lost replica before it is tried again

log = get_logger("system")


class Database:
    """The primary, and a replica for reads that may lag. Raises Duplicate (409) and Unavailable (503)."""

    def __init__(self, primary: Pool, replica: Pool | None) -> None:
        self.primary = primary
        self.replica = replica
        self.replica_lost_at = -math.inf

    async def fetch_all(self, sql: str, values: Values | None = None, *, may_lag: bool = False) -> list[Row]:
        if may_lag and self.replica and time.monotonic() - self.replica_lost_at > REPLICA_PAUSE:
            try:
                return await self._read(self.replica, sql, values)
            except Unavailable as error:
                self.replica_lost_at = time.monotonic()
                log.warning("the replica is lost, reading from the primary: %s", error.cause)
        return await self._read(self.primary, sql, values)

    async def fetch_one(self, sql: str, values: Values | None = None) -> Row | None:
        rows = await self._read(self.primary, sql, values)
        return rows[0] if rows else None

    async def execute(self, sql: str, values: Values | None = None) -> int:
        """Runs one statement, a transaction of its own; the number of rows that it matched."""
        async with self.primary.connection() as connection:
            return await connection.execute(sql, values)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """BEGIN, then COMMIT at the end of the block; when it raises, ROLLBACK."""
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._begin())
            except ConnectionLost:
                connection = await stack.enter_async_context(self._begin())
            try:
                yield connection
            except Duplicate:
                await connection.execute("ROLLBACK")
                raise
            await connection.execute("COMMIT")

    @asynccontextmanager
    async def _begin(self) -> AsyncIterator[Connection]:
        async with self.primary.connection() as connection:
            # SQLite: the write lock at once, or two transactions that read first would refuse each other
            await connection.execute("BEGIN" if connection.pool.mysql else "BEGIN IMMEDIATE")
            yield connection

    async def _read(self, pool: Pool, sql: str, values: Values | None) -> list[Row]:
        try:
            async with pool.connection() as connection:
                return await connection.fetch_all(sql, values)
        except ConnectionLost:
            pass
        async with pool.connection() as connection:
            return await connection.fetch_all(sql, values)

    def collect(self) -> Iterator[Family]:
        pools = {"primary": self.primary} | ({"replica": self.replica} if self.replica else {})
        named = [({"db_client_connection_pool_name": name}, pool) for name, pool in pools.items()]
        yield Family(
            "histogram",
            "db_client_connection_wait_time_seconds",
            "Time to get a database connection",
            [(labels, pool.wait_seconds) for labels, pool in named],
        )
        yield Family(
            "gauge",
            "db_client_connection_count",
            "Database connections open",
            [
                ({**labels, "db_client_connection_state": state}, value)
                for labels, pool in named
                for state, value in (("used", pool.used), ("idle", max(0, pool.size - pool.used)))
            ],
        )
        most = self.primary.settings.mysql_pool_max_size
        yield Family(
            "gauge", "db_client_connection_max", "MYSQL_POOL_MAX_SIZE", [(labels, most) for labels, _ in named]
        )

    async def close(self) -> None:
        for pool in filter(None, (self.replica, self.primary)):
            await pool.close()


async def open_database(settings: Settings) -> Database:
    """Connects and asks the server who it is. Raises Unavailable."""
    if not settings.mysql_enabled:
        path = sqlite_path(settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        database = Database(Pool(f"sqlite:///{quote(str(path))}", settings, timeout=settings.mysql_query_timeout), None)
        await database.primary.open(min_size=0)
        await database.fetch_one("PRAGMA journal_mode = WAL")
        return database
    os.environ.setdefault(
        "LOGNAME", settings.name
    )  # aiomysql asks for it when imported; a container's user may have no name
    sizes = {"min_size": 0, "max_size": 0}  # no bounds of its own: ours count
    options = connection_options(settings, unix_socket=settings.mysql_unix_socket) | sizes
    database = Database(Pool(mysql_url(settings, settings.mysql_host), settings, **options), None)
    await database.primary.open(settings.mysql_pool_min_size)
    try:
        [(version, max_connections)] = await database.fetch_all("SELECT VERSION(), @@max_connections")
        if settings.mysql_read_host:
            options = connection_options(settings, unix_socket=None) | sizes  # the socket leads to the primary
            database.replica = Pool(mysql_url(settings, settings.mysql_read_host), settings, **options)
            await database.replica.open(min_size=0)
    except BaseException:
        await database.close()
        raise
    log.info("database connected", extra={"server": settings.mysql_host, "version": version})
    if max_connections < settings.mysql_pool_max_size:
        text = "MYSQL_POOL_MAX_SIZE is %d, more than the server's max_connections, %d"
        log.warning(text, settings.mysql_pool_max_size, max_connections)
    return database


def sqlite_path(settings: Settings) -> Path:
    return settings.data_dir.absolute() / f"{settings.name}.db"
