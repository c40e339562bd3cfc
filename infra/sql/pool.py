"""Connections to one MySQL server, or to SQLite: so many at most, under time-outs, each thrown away after any doubt.

`databases` opens them. aiomysql's pool, below it, loses slots and wake-ups, hangs, takes plain text for TLS
(tests/faults/ plays it through) and looks at all that is idle for each use: to it, those kept here are in use.
"""

import asyncio
import re
import sqlite3
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Self

from pymysql import err
from pymysql.constants import CR, ER

from infra.base.errors import Duplicate, Unavailable
from infra.base.time_limits import TimeLimit
from infra.fast.lean_imports import stand_ins
from infra.logs import get_logger
from infra.metrics.counters import Histogram
from infra.sql.mysql import tls_required
from settings import Settings

with stand_ins("sqlalchemy"):  # 90 ms and 10 MiB; would compile queries, where all of ours are text
    import databases
    from databases.interfaces import ConnectionBackend

Row = tuple[Any, ...]
Values = Mapping[str, Any]
Run = Callable[[Any, str, Values], Awaitable[tuple[list[Row], int]]]  # a connection of the driver's, a statement

WAIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
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
    """One connection, checked out for a block (a generator would take 3 us more for that).

    Statements name their values as `:name`.
    """

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool

    async def __aenter__(self) -> Self:
        self.held = await self.pool.check_out()
        self.raw: Any = self.held.raw_connection
        return self

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        await self.pool.check_in(self.held, error)

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
            with self.pool.query_limit():
                return await self.pool.run(self.raw, sql, values or {})
        except (err.IntegrityError, sqlite3.IntegrityError) as error:
            raise Duplicate(duplicate_field(str(error))) from None
        except (err.ProgrammingError, err.DataError):
            raise  # a defect of ours, not a fault
        except FAILURES as error:
            raise unavailable(error) from error
        finally:
            seconds = time.perf_counter() - started
            if seconds > self.pool.settings.mysql_slow_query:
                sql_log.warning("slow query", extra={"statement": sql, "duration_ms": round(seconds * 1000, 1)})


async def run_sqlite(raw: Any, sql: str, values: Values) -> tuple[list[Row], int]:
    cursor = await raw.cursor()
    try:
        await cursor.execute(sql, dict(values))
        return list(await cursor.fetchall()) if cursor.description else [], cursor.rowcount
    except sqlite3.IntegrityError:
        await cursor.close()  # or the connection would stay open until the cursor is collected
        raise


class Pool:
    """At most MYSQL_POOL_MAX_SIZE connections to one server."""

    def __init__(self, url: str, settings: Settings, **options: Any) -> None:
        self.settings = settings
        self.mysql = url.startswith("mysql")
        self.run: Run = run_sqlite
        if self.mysql:
            from infra.fast import mysql_packets  # noqa: PLC0415 - which imports aiomysql

            self.run = mysql_packets.run
        with stand_ins("sqlalchemy"):  # it imports what it needs for this kind of server
            self.backend = databases.Database(url, **options)
        self.slots = asyncio.Semaphore(settings.mysql_pool_max_size)
        self.idle: deque[ConnectionBackend] = deque()  # to MySQL
        self.used = 0
        self.wait_seconds = Histogram(WAIT_SECONDS)
        self.slot_limit = TimeLimit(settings.mysql_pool_timeout)
        self.query_limit = TimeLimit(settings.mysql_query_timeout)

    async def open(self, min_size: int) -> None:
        """Raises Unavailable."""
        await self.backend.connect()
        try:
            for _ in range(min_size):
                self.idle.append(await self._connect())
        except BaseException:
            await self.close()
            raise

    def connection(self) -> Connection:
        return Connection(self)

    async def check_out(self) -> ConnectionBackend:
        """Raises Unavailable."""
        started = time.perf_counter()
        await self._take_slot()
        self.used += 1
        try:
            held = self._take_idle() or await self._connect()
        except BaseException:
            self._give_slot()
            raise
        self.wait_seconds.observe(time.perf_counter() - started)
        return held

    async def check_in(self, held: ConnectionBackend, error: BaseException | None) -> None:
        """After any error but a refused value it is closed, not used again."""
        try:
            if isinstance(error, Demoted):
                self._drop_idle()  # what is asked next connects anew, by the server's name
            # SQLite's is closed: the end of a cursor that is collected later would wait for what the connection's
            # thread does meanwhile, and that for the interpreter's lock
            if self.mysql and (error is None or isinstance(error, Duplicate)):
                self.idle.append(held)
            else:
                await self._discard(held)
        finally:
            self._give_slot()

    def _give_slot(self) -> None:
        self.used -= 1
        self.slots.release()

    async def _take_slot(self) -> None:
        if not self.slots.locked():
            await self.slots.acquire()  # at once
            return
        try:
            with self.slot_limit():
                await self.slots.acquire()
        except TimeoutError:
            self.wait_seconds.observe(self.settings.mysql_pool_timeout)
            raise Unavailable("the database is busy", "no free connection within MYSQL_POOL_TIMEOUT") from None

    def _take_idle(self) -> ConnectionBackend | None:
        while self.idle:
            held = self.idle.popleft()
            if self._usable(held.raw_connection):
                return held
            self._cut(held)
        return None

    def _usable(self, raw: Any) -> bool:
        """Whether the server hasn't closed it, and it isn't older than MYSQL_POOL_RECYCLE."""
        reader = raw._reader  # noqa: SLF001 - nothing public tells; eof_received: MySQL 8 says something first
        if raw.closed or reader.at_eof() or reader.exception() or reader.eof_received:
            return False
        return bool(raw.loop.time() - raw.connected_time < self.settings.mysql_pool_recycle)

    async def _connect(self) -> ConnectionBackend:
        """Raises Unavailable."""
        # databases' own connection() belongs to a task, and takes three locks
        held: ConnectionBackend = self.backend._backend.connection()  # noqa: SLF001
        try:
            async with asyncio.timeout(self.settings.mysql_connect_timeout):
                await held.acquire()
        except FAILURES as error:
            raise unavailable(error) from error
        if self.mysql and tls_required(self.settings) and not held.raw_connection._secure:  # noqa: SLF001
            self._cut(held)
            raise Unavailable("the database is unavailable", "MYSQL_SSL_MODE requires TLS, the server has none")
        return held

    async def _discard(self, held: ConnectionBackend) -> None:
        if self.mysql:
            self._cut(held)
        else:  # SQLite's thread may be waiting for another process's lock; it closes when it has it
            await asyncio.wait([asyncio.ensure_future(held.release())], timeout=RELEASE_TIMEOUT)

    def _cut(self, held: ConnectionBackend) -> None:
        """Without a good-bye, which would have to be waited for."""
        held.raw_connection.close()
        pool = self.backend._backend._pool  # noqa: SLF001 - held.release() is a coroutine
        if pool is not None:  # closed meanwhile
            pool.release(held.raw_connection)

    def _drop_idle(self) -> None:
        while self.idle:
            self._cut(self.idle.popleft())

    @property
    def size(self) -> int:
        """Connections open now, used or idle."""
        return self.used + len(self.idle)

    async def close(self) -> None:
        """Cuts what still runs: a transaction left open must not hold up the exit."""
        if self.mysql and self.backend.is_connected:
            self.backend._backend._pool.terminate()  # noqa: SLF001
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                self._drop_idle()
                await self.backend.disconnect()
        except TimeoutError:
            log.warning("the database connections did not close in time")


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
