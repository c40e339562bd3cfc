"""MySQL, or SQLite, through `databases`: reads, writes, transactions, a replica for reads that may lag."""

import math
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, overload

from infra.base.errors import Duplicate, Unavailable
from infra.logs import get_logger
from infra.metrics.counters import Family
from infra.sql.backend import Statement, with_pool
from infra.sql.errors import ConnectionLost
from infra.sql.pool import Pool, Row, Values
from infra.sql.sqlite_driver import SQLiteDriver, make_private
from settings import Settings

__all__ = ["Connection", "Database", "Row", "open_database", "sqlite_path"]

Named = TypeVar("Named", bound=NamedTuple)

REPLICA_PAUSE = 5  # seconds without a lost replica before it is tried again

log = get_logger("system")


class Queries:
    """Statements name their values as `:name`. Rows are made `into` a NamedTuple of the columns, or plain tuples.

    Raises Duplicate (409), Unavailable (503) and StatementError (500).
    """

    async def rows(self, sql: str, values: Values, *, may_lag: bool) -> list[Row]:
        raise NotImplementedError

    @overload
    async def fetch_all(
        self, sql: str, values: Values | None = None, *, into: type[Named], may_lag: bool = False
    ) -> list[Named]: ...
    @overload
    async def fetch_all(self, sql: str, values: Values | None = None, *, may_lag: bool = False) -> list[Row]: ...
    async def fetch_all(
        self, sql: str, values: Values | None = None, *, into: Any = None, may_lag: bool = False
    ) -> list[Any]:
        """`may_lag`: from the replica, when there is one and no transaction."""
        rows = await self.rows(sql, values or {}, may_lag=may_lag)
        return [into._make(row) for row in rows] if into else rows

    @overload
    async def fetch_one(self, sql: str, values: Values | None = None, *, into: type[Named]) -> Named | None: ...
    @overload
    async def fetch_one(self, sql: str, values: Values | None = None) -> Row | None: ...
    async def fetch_one(self, sql: str, values: Values | None = None, *, into: Any = None) -> Any:
        """The first row, or None."""
        rows = await self.rows(sql, values or {}, may_lag=False)
        return (into._make(rows[0]) if into else rows[0]) if rows else None

    async def execute(self, sql: str, values: Values | None = None) -> int:
        """The number of rows that the statement matched, changed or not."""
        raise NotImplementedError


class Connection(Queries):
    """One connection, within a transaction."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection  # of `databases`

    async def rows(self, sql: str, values: Values, *, may_lag: bool) -> list[Row]:  # noqa: ARG002 - sees its own writes
        rows: list[Row] = await self.connection.fetch_all(Statement(sql, values))
        return rows

    async def execute(self, sql: str, values: Values | None = None) -> int:
        matched: int = await self.connection.execute(Statement(sql, values or {}))
        return matched


class Database(Queries):
    """The primary, and a replica for reads that may lag."""

    def __init__(self, primary: Pool, replica: Pool | None = None) -> None:
        self.primary = primary
        self.replica = replica
        self.databases = with_pool(primary)
        self.mysql = primary.driver.url.startswith("mysql")  # or SQLite
        self.replica_lost_at = -math.inf

    async def rows(self, sql: str, values: Values, *, may_lag: bool) -> list[Row]:
        if may_lag and self.replica and time.monotonic() - self.replica_lost_at > REPLICA_PAUSE:
            try:
                return await read(self.replica, sql, values)
            except Unavailable as error:
                self.replica_lost_at = time.monotonic()
                log.warning("the replica is lost, reading from the primary: %s", error.cause)
        return await read(self.primary, sql, values)

    async def execute(self, sql: str, values: Values | None = None) -> int:
        """Runs one statement, a transaction of its own; the number of rows that it matched."""
        async with self.primary.connection() as connection:
            _, matched = await connection.run(sql, values or {})
        return matched

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """BEGIN, then COMMIT at the end of the block; when it raises, ROLLBACK."""
        async with AsyncExitStack() as stack:
            try:
                connection = await stack.enter_async_context(self._begun())
            except ConnectionLost:  # nothing was done on it
                connection = await stack.enter_async_context(self._begun())
            try:
                yield connection
            except Duplicate:
                await connection.execute("ROLLBACK")
                raise  # after any other error the connection is closed, which rolls back as well
            await connection.execute("COMMIT")

    @asynccontextmanager
    async def _begun(self) -> AsyncIterator[Connection]:
        driver = self.primary.driver
        async with self.databases.connection() as connection:  # of `databases`: the task's own
            if driver.in_transaction(connection.raw_connection):
                raise RuntimeError("this task is in a transaction already, which another BEGIN would commit")
            begun = Connection(connection)
            await begun.execute(driver.begin)
            yield begun

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
        if self.replica:
            await self.replica.close()
        await self.databases.disconnect()


async def read(pool: Pool, sql: str, values: Values) -> list[Row]:
    """Tries once more when the connection was lost."""
    try:
        async with pool.connection() as connection:
            rows, _ = await connection.run(sql, values)
    except ConnectionLost:
        async with pool.connection() as connection:
            rows, _ = await connection.run(sql, values)
    return rows


async def open_database(settings: Settings) -> Database:
    """Connects and asks the server who it is. Raises Unavailable."""
    return await (open_mysql(settings) if settings.mysql_enabled else open_sqlite(settings))


async def open_sqlite(settings: Settings) -> Database:
    path = sqlite_path(settings)
    make_private(path)
    database = Database(Pool(SQLiteDriver(path, settings), settings))
    await database.databases.connect()
    await database.fetch_one("PRAGMA journal_mode = WAL")
    return database


async def open_mysql(settings: Settings) -> Database:
    os.environ.setdefault("LOGNAME", settings.name)  # aiomysql asks for it; a container's user may have none
    from infra.sql.mysql_driver import MySQLDriver  # noqa: PLC0415 - where there is no MySQL, aiomysql isn't imported

    port = settings.mysql_port
    driver = MySQLDriver(settings, settings.mysql_host, port, settings.mysql_unix_socket)
    database = Database(Pool(driver, settings, settings.mysql_pool_min_size))
    await database.databases.connect()
    try:
        [(version, max_connections)] = await database.fetch_all("SELECT VERSION(), @@max_connections")
    except BaseException:
        await database.close()
        raise
    if settings.mysql_read_host:  # without the socket, which leads to the primary
        database.replica = Pool(MySQLDriver(settings, settings.mysql_read_host, port), settings)
    log.info("database connected", extra={"server": settings.mysql_host, "version": version})
    if max_connections < settings.mysql_pool_max_size:
        text = "MYSQL_POOL_MAX_SIZE is %d, more than the server's max_connections, %d"
        log.warning(text, settings.mysql_pool_max_size, max_connections)
    return database


def sqlite_path(settings: Settings) -> Path:
    return settings.data_dir.absolute() / f"{settings.name}.db"
