"""Connections to one server: so many at most, under time-outs, each thrown away after any doubt."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Protocol, Self

from infra.base.errors import Duplicate, Unavailable
from infra.base.time_limits import TimeLimit
from infra.logs import get_logger
from infra.metrics.counters import Histogram
from infra.sql.errors import ConnectionLost, Demoted, StatementError
from settings import Settings

Row = tuple[Any, ...]
Values = Mapping[str, Any]

WAIT_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0)
CLOSE_TIMEOUT = 1  # seconds
PING_AFTER = 1  # seconds without use
PING_TIMEOUT = 1  # seconds

log = get_logger("system")
sql_log = get_logger("sql")


class Driver(Protocol):
    """What the pool has to know of a kind of server. `raw` is a connection of the package's."""

    url: str
    begin: str  # the statement that begins a transaction

    @property
    def errors(self) -> tuple[type[BaseException], ...]: ...  # that explain() knows
    async def connect(self) -> Any: ...
    async def run(self, raw: Any, sql: str, values: Values) -> tuple[list[Row], int]: ...
    async def ping(self, raw: Any) -> None: ...
    async def close(self, raw: Any) -> None: ...
    def may_be_kept(self, raw: Any, /) -> bool: ...
    def in_transaction(self, raw: Any) -> bool: ...
    def explain(self, error: BaseException, statement: str) -> Duplicate | Unavailable | StatementError: ...
    def unavailable(self, error: BaseException) -> Unavailable: ...


class Opened:
    """A connection of the package's, with its times in monotonic seconds."""

    __slots__ = ("opened_at", "raw", "used_at")

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.opened_at = self.used_at = time.monotonic()


class PooledConnection:
    """A connection of the pool's, checked out for a block, or from acquire() to release()."""

    def __init__(self, pool: "Pool") -> None:
        self.pool = pool

    async def acquire(self) -> None:
        """Raises Unavailable."""
        self.opened = await self.pool.check_out()
        self.sound = True

    async def release(self) -> None:
        await self.pool.check_in(self.opened, sound=self.sound)

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.release()

    @property
    def raw_connection(self) -> Any:
        return self.opened.raw

    async def run(self, sql: str, values: Values) -> tuple[list[Row], int]:
        """The rows, and how many these are or were matched, changed or not.

        After any error but a refused value the connection is not used again.
        """
        pool = self.pool
        self.sound = False
        started = time.perf_counter()
        try:
            with pool.query_limit():
                answer = await pool.driver.run(self.opened.raw, sql, values)
        except pool.driver.errors as error:
            raise await self._explained(error, sql) from None  # what MySQL says may hold values
        finally:
            seconds = time.perf_counter() - started
            if seconds > pool.settings.mysql_slow_query:
                sql_log.warning("slow query", extra={"statement": sql, "duration_ms": round(seconds * 1000, 1)})
        self.sound = True
        return answer

    async def _explained(self, error: BaseException, sql: str) -> Exception:
        explained = self.pool.driver.explain(error, sql)
        self.sound = isinstance(explained, Duplicate)
        if isinstance(error, TimeoutError) or isinstance(explained, ConnectionLost):
            self.pool.doubted_at = time.monotonic()
        elif isinstance(explained, Demoted):
            await self.pool.drop_idle()  # what is asked next connects anew, by the server's name
        return explained


class Pool:
    """At most MYSQL_POOL_MAX_SIZE connections to one server."""

    def __init__(self, driver: Driver, settings: Settings, min_size: int = 0) -> None:
        self.driver = driver
        self.settings = settings
        self.min_size = min_size
        self.slots = asyncio.Semaphore(settings.mysql_pool_max_size)
        self.idle: list[Opened] = []
        self.lent: set[Opened] = set()
        self.used = 0  # slots
        self.closed = False
        self.doubted_at = 0.0  # monotonic seconds: what was used last before that may be broken
        self.wait_seconds = Histogram(WAIT_SECONDS)
        self.slot_limit = TimeLimit(settings.mysql_pool_timeout)
        self.query_limit = TimeLimit(settings.mysql_query_timeout)

    async def open(self) -> None:
        """Raises Unavailable."""
        try:
            for _ in range(self.min_size):
                self.idle.append(await self._connect())
        except BaseException:
            await self.close()
            raise

    def connection(self) -> PooledConnection:
        return PooledConnection(self)

    async def check_out(self) -> Opened:
        """Raises Unavailable."""
        started = time.perf_counter()
        await self._take_slot()
        self.used += 1
        try:
            opened = await self._take_idle() or await self._connect()
        except BaseException:
            self._give_slot()
            raise
        self.lent.add(opened)
        self.wait_seconds.observe(time.perf_counter() - started)
        return opened

    async def check_in(self, opened: Opened, *, sound: bool) -> None:
        self.lent.discard(opened)
        try:
            if sound and not self.closed and self.driver.may_be_kept(opened.raw):
                opened.used_at = time.monotonic()
                self.idle.append(opened)
            else:
                await self.driver.close(opened.raw)
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

    async def _take_idle(self) -> Opened | None:
        """The one used last, so that few are asked whether they are still there."""
        while self.idle:
            opened = self.idle.pop()
            now = time.monotonic()
            if now - opened.opened_at < self.settings.mysql_pool_recycle:
                fresh = opened.used_at > self.doubted_at and now - opened.used_at < PING_AFTER
                if fresh or await self._answers(opened):
                    return opened
            await self.driver.close(opened.raw)
        return None

    async def _answers(self, opened: Opened) -> bool:
        """Whether the server has neither closed the connection nor fallen silent; then the others are doubted too."""
        try:
            async with asyncio.timeout(PING_TIMEOUT):
                await self.driver.ping(opened.raw)
        except TimeoutError:
            await self.drop_idle()
            return False
        except self.driver.errors:
            self.doubted_at = time.monotonic()
            return False
        except BaseException:
            await self.driver.close(opened.raw)
            raise
        return True

    async def _connect(self) -> Opened:
        """Raises Unavailable."""
        try:
            async with asyncio.timeout(self.settings.mysql_connect_timeout):
                return Opened(await self.driver.connect())
        except self.driver.errors as error:
            raise self.driver.unavailable(error) from error

    async def drop_idle(self) -> None:
        while self.idle:
            await self.driver.close(self.idle.pop().raw)

    @property
    def size(self) -> int:
        """Connections open now, used or idle."""
        return self.used + len(self.idle)

    async def close(self) -> None:
        """Cuts what still runs: a transaction left open must not hold up the exit."""
        self.closed = True
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self.drop_idle()
                await asyncio.gather(*(self.driver.close(opened.raw) for opened in self.lent))
        except TimeoutError:
            log.warning("the database connections did not close in time")
