"""MySQL, or SQLite, through `databases`: pool, time-outs, transactions, health.

`databases` and aiomysql lose pool slots, hang and take plain text for TLS (tests/faults/ plays it
through), so each connection is checked out here, under time-outs of our own, and thrown away after any doubt.
"""

import asyncio
import contextlib
import math
import os
import re
import sqlite3
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import databases
from pymysql import err
from pymysql.constants import CR, ER

from infra.logs import get_logger
from infra.metrics import Histogram
from infra.mysql import connection_options, mysql_url, tls_required
from infra.problems import Duplicate, Unavailable
from settings import Settings

Row = tuple[Any, ...]
Values = Mapping[str, Any]

WAIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
REPLICA_PAUSE = 5  # seconds without a lost replica before it is tried again
RELEASE_TIMEOUT = 0.25  # seconds
CLOSE_TIMEOUT = 1  # seconds; the connections are cut before, this only waits for the pool to notice
# The last two are MariaDB's ER_CONNECTION_KILLED and MySQL's ER_CLIENT_INTERACTION_TIMEOUT.
LOST_CODES = {CR.CR_SERVER_GONE_ERROR, CR.CR_SERVER_LOST, ER.SERVER_SHUTDOWN, 1927, 4031}
DEMOTED_CODES = {ER.OPTION_PREVENTS_STATEMENT, 1836}  # --read-only; MySQL's ER_READ_ONLY_MODE
FAILURES = (err.MySQLError, sqlite3.OperationalError, OSError, EOFError, RuntimeError)
NEEDS_TLS = "caching_sha2_password needs TLS: MYSQL_SSL_MODE is disabled, or the server offers none"

log = get_logger("system")
sql_log = get_logger("sql")


class ConnectionLost(Unavailable):
    """The connection broke, often before the statement ran: a read may be tried again."""


class Demoted(Unavailable):
    """The server takes no writes: after a failover its name leads to another one."""


class Connection:
    """One connection, checked out; statements name their values as `:name`."""

    def __init__(self, raw: Any, settings: Settings, *, mysql: bool) -> None:
        self.raw = raw
        self.settings = settings
        self.mysql = mysql

    async def fetch_all(self, sql: str, values: Values | None = None) -> list[Row]:
        rows, _ = await self._run(sql, values)
        return rows

    async def fetch_one(self, sql: str, values: Values | None = None) -> Row | None:
        rows, _ = await self._run(sql, values)
        return rows[0] if rows else None

    async def execute(self, sql: str, values: Values | None = None) -> int:
        """The number of rows that the statement matched, changed or not."""
        _, matched = await self._run(sql, values)
        return matched

    async def _run(self, sql: str, values: Values | None) -> tuple[list[Row], int]:
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self.settings.mysql_query_timeout):
                cursor = await self.raw.cursor()
                await cursor.execute(pyformat(sql) if self.mysql else sql, dict(values or {}))
                rows = await cursor.fetchall() if cursor.description else []
                return list(rows), cursor.rowcount
        except (err.IntegrityError, sqlite3.IntegrityError) as error:
            raise Duplicate(duplicate_field(str(error))) from None
        except (err.ProgrammingError, err.DataError):
            raise  # a defect of ours, not a fault
        except FAILURES as error:
            raise unavailable(error) from error
        finally:
            seconds = time.perf_counter() - started
            if seconds > self.settings.mysql_slow_query:
                sql_log.warning("slow query", extra={"statement": sql, "duration_ms": round(seconds * 1000, 1)})


class Pool:
    """At most MYSQL_POOL_MAX_SIZE connections to one server."""

    def __init__(self, url: str, settings: Settings, **options: Any) -> None:
        self.settings = settings
        self.mysql = url.startswith("mysql")
        # Slots are counted here, so that aiomysql's pool never has a waiter: it may forget to wake one.
        self.slots = asyncio.Semaphore(settings.mysql_pool_max_size)
        self.used = 0
        self.wait_seconds = Histogram(WAIT_SECONDS)
        self.backend = databases.Database(url, **options)

    async def open(self) -> None:
        """Raises Unavailable."""
        try:
            async with asyncio.timeout(self.settings.mysql_connect_timeout * max(1, self.settings.mysql_pool_min_size)):
                await self.backend.connect()
        except FAILURES as error:
            raise unavailable(error) from error

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of one's own; after any failure but a refused value it is closed, not given back."""
        started = time.perf_counter()
        async with self._slot(), self._checkout() as raw:
            self.wait_seconds.observe(time.perf_counter() - started)
            try:
                if self.mysql and tls_required(self.settings) and not raw._secure:  # noqa: SLF001 - aiomysql has no public name
                    raise Unavailable("the database is unavailable", "MYSQL_SSL_MODE requires TLS, the server has none")
                yield Connection(raw, self.settings, mysql=self.mysql)
            except Duplicate:
                raise
            except BaseException as error:
                if self.mysql:
                    raw.close()
                    if isinstance(error, Demoted):
                        self._drop_idle()
                raise
            if self.mysql and raw.loop.time() - raw.connected_time >= self.settings.mysql_pool_recycle:
                raw.close()

    def _drop_idle(self) -> None:
        """What is asked next connects anew, by the server's name."""
        idle = self.backend._backend._pool._free  # noqa: SLF001 - its clear() says good-bye, and waits for that
        while idle:
            idle.popleft().close()

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.settings.mysql_pool_timeout):
                await self.slots.acquire()
        except TimeoutError:
            self.wait_seconds.observe(self.settings.mysql_pool_timeout)
            raise Unavailable("the database is busy", "no free connection within MYSQL_POOL_TIMEOUT") from None
        self.used += 1
        try:
            yield
        finally:
            self.used -= 1
            self.slots.release()

    @asynccontextmanager
    async def _checkout(self) -> AsyncIterator[Any]:
        # Its own, where backend.connection() would be shared by all that one task does.
        connection = databases.core.Connection(self.backend, self.backend._backend)  # noqa: SLF001
        try:
            async with asyncio.timeout(self.settings.mysql_connect_timeout):
                await connection.__aenter__()
        except FAILURES as error:
            raise unavailable(error) from error
        try:
            yield connection.raw_connection
        finally:
            if self.mysql:
                await connection.__aexit__()
            else:  # SQLite's thread may be waiting for another process's lock; it closes when it has it
                await asyncio.wait([asyncio.ensure_future(connection.__aexit__())], timeout=RELEASE_TIMEOUT)

    @property
    def size(self) -> int:
        """Connections open now, used or idle."""
        return self.backend._backend._pool.size if self.mysql else self.used  # noqa: SLF001

    async def close(self) -> None:
        """Cuts what still runs: a transaction left open must not hold up the exit."""
        if self.mysql and self.backend.is_connected:
            self.backend._backend._pool.terminate()  # noqa: SLF001
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.backend.disconnect()
        except TimeoutError:
            log.warning("the database connections did not close in time")


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
            await connection.execute("BEGIN" if connection.mysql else "BEGIN IMMEDIATE")
            yield connection

    async def _read(self, pool: Pool, sql: str, values: Values | None) -> list[Row]:
        with contextlib.suppress(ConnectionLost):
            async with pool.connection() as connection:
                return await connection.fetch_all(sql, values)
        async with pool.connection() as connection:
            return await connection.fetch_all(sql, values)

    async def close(self) -> None:
        for pool in filter(None, (self.replica, self.primary)):
            await pool.close()


async def open_database(settings: Settings) -> Database:
    """Connects and asks the server who it is. Raises Unavailable."""
    if not settings.mysql_enabled:
        path = sqlite_path(settings)
        path.parent.mkdir(parents=True, exist_ok=True)
        database = Database(Pool(f"sqlite:///{quote(str(path))}", settings, timeout=settings.mysql_query_timeout), None)
        await database.primary.open()
        await database.fetch_one("PRAGMA journal_mode = WAL")
        return database
    os.environ.setdefault("LOGNAME", "berth")  # aiomysql asks for it when imported; a container's user may have no name
    sizes = {"max_size": settings.mysql_pool_max_size, "pool_recycle": settings.mysql_pool_recycle}
    options = connection_options(settings, unix_socket=settings.mysql_unix_socket) | sizes
    url = mysql_url(settings, settings.mysql_host)
    database = Database(Pool(url, settings, min_size=settings.mysql_pool_min_size, **options), None)
    await database.primary.open()
    try:
        [(version, max_connections)] = await database.fetch_all("SELECT VERSION(), @@max_connections")
        if settings.mysql_read_host:
            options = connection_options(settings, unix_socket=None) | sizes  # the socket leads to the primary
            database.replica = Pool(mysql_url(settings, settings.mysql_read_host), settings, min_size=0, **options)
            await database.replica.open()
    except BaseException:
        await database.close()
        raise
    log.info("database connected", extra={"server": settings.mysql_host, "version": version})
    if max_connections < settings.mysql_pool_max_size:
        text = "MYSQL_POOL_MAX_SIZE is %d, more than the server's max_connections, %d"
        log.warning(text, settings.mysql_pool_max_size, max_connections)
    return database


def sqlite_path(settings: Settings) -> Path:
    return settings.data_dir.absolute() / "berth.db"


def unavailable(error: BaseException) -> Unavailable:
    if isinstance(error, RuntimeError) and "caching_sha2_password" in str(error):  # the packages would ask for another
        return Unavailable("the database is unavailable", NEEDS_TLS)
    code = error.args[0] if isinstance(error, err.MySQLError) and error.args else None
    kind = ConnectionLost if code in LOST_CODES else Demoted if code in DEMOTED_CODES else Unavailable
    return kind("the database is unavailable", error)


def duplicate_field(message: str) -> str:
    """`username` from MySQL's "... for key 'accounts.username_key'" or SQLite's "...: accounts.username_key"."""
    found = re.search(r"(\w+)_key\W*$", message)
    return found[1] if found else "value"


@lru_cache(maxsize=128)
def pyformat(sql: str) -> str:
    """`:name` in PyMySQL's words, `%(name)s`."""
    return re.sub(r":([a-z_]+)", r"%(\1)s", sql.replace("%", "%%"))
