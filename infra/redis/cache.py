"""Redis, or nothing: session state and profiles for at most a minute, and whatever else may be forgotten.

Nothing here raises to a handler: without Redis each read is a miss and each write does nothing. Every key carries the
hash tag `{account_id}`, so that a command touches one slot of a cluster.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any, TypeVar

from infra.base.background import background
from infra.base.time_limits import TimeLimit
from infra.http.problems import NO_ANSWER, Unavailable, describe
from infra.logs import get_logger
from settings import Settings

TTL = 60  # seconds: the age that the contract allows
PING_INTERVAL = 1  # seconds; a lost Redis is noticed, and a new one used, within that
ENOUGH_READS = 100  # go out without waiting for more
TOMBSTONE = b""  # in place of a value that has changed: a reader that is still filling in the old one is refused

# KEYS: account, session. ARGV: the account's JSON, seconds to live.
FILL = """
if redis.call('GET', KEYS[1]) == '' or redis.call('GET', KEYS[2]) == '' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], '1', 'EX', ARGV[2])
return 1
"""

Keys = list[str]
NOTHING = (None, None)  # read where there is no Redis
Client = Any  # coredis.Redis[bytes] or coredis.RedisCluster[bytes], which share only a private base
Result = TypeVar("Result")

log = get_logger("system")


class Cache:
    """A client that a task of its own opens, watches and replaces when it fails."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.enabled = settings.redis_host is not None
        self.client: Client | None = None
        self.time_limit = TimeLimit(settings.redis_timeout)
        self.cause = NO_ANSWER
        self.tried = asyncio.Event()  # once, whether it worked or not
        self.hits = self.misses = self.errors = 0
        self.reads: list[tuple[Keys, asyncio.Future[Sequence[bytes | None]]]] = []  # not yet sent
        self.senders: set[asyncio.Task[None]] = set()

    async def run(self, command: Callable[[Client], Awaitable[Result]]) -> Result | None:
        """What the command answers, or None when Redis is lost, absent or slower than REDIS_TIMEOUT."""
        client = self.client
        if client is None:
            return None
        try:
            with self.time_limit():
                return await command(client)
        except Exception as error:  # noqa: BLE001 - coredis raises its own, OSError, RuntimeError and groups of them
            self.errors += 1
            # coredis may lose a slot of its pool whenever a connection breaks: start afresh rather than count them
            if self.client is client:
                self.client, self.cause = None, describe(error)
            return None

    async def ping(self) -> None:
        """Raises Unavailable."""
        await self.tried.wait()
        if await self.run(probe) is None:
            raise Unavailable("Redis is unavailable", self.cause)

    async def supervise(self) -> None:
        """Keeps a client open until cancelled."""
        from infra.redis.client import new_client  # noqa: PLC0415 - only where there is a Redis

        known_lost = False
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    async with asyncio.timeout(self.settings.redis_timeout):
                        client = await stack.enter_async_context(new_client(self.settings))
                        await probe(client)
                    self.client = client
                    self.tried.set()
                    log.info("Redis is back" if known_lost else "Redis connected")
                    known_lost = False
                    await self._watch()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round may work
                self.cause = describe(error)
            finally:
                self.client = None
                self.tried.set()
            if not known_lost:
                log.warning("Redis is lost: %s", self.cause)
                known_lost = True
            await asyncio.sleep(PING_INTERVAL / 2)

    async def _watch(self) -> None:
        while self.client is not None:
            await asyncio.sleep(PING_INTERVAL)
            await self.run(probe)

    async def get_session(self, account_id: str, session_id: str) -> bytes | None:
        """The account's JSON when both it and the live session are known."""
        account, session = await self._read([account_key(account_id), session_key(account_id, session_id)])
        found = account if account and session else None
        self.hits += found is not None
        self.misses += found is None
        return found

    async def _read(self, keys: Keys) -> Sequence[bytes | None]:
        """Together with what else is read now: a command for each costs four times as much as one for all."""
        if self.client is None:
            return NOTHING
        answer: asyncio.Future[Sequence[bytes | None]] = asyncio.get_running_loop().create_future()
        self.reads.append((keys, answer))
        if len(self.reads) == 1:
            task = asyncio.create_task(self._send_reads())
            self.senders.add(task)
            task.add_done_callback(self.senders.discard)
        return await answer

    async def _send_reads(self) -> None:
        """When a turn of the event loop brings no more of them: an idle one waits for none, a busy one gathers many."""
        gathered = 1
        while gathered < len(self.reads) < ENOUGH_READS:
            gathered = len(self.reads)
            await asyncio.sleep(0)
        reads, self.reads = self.reads, []
        answers: Sequence[Sequence[bytes | None]] | None = None
        try:
            cluster = self.settings.redis_cluster
            answers = await self.run(lambda client: mget_each(client, [keys for keys, _ in reads], cluster=cluster))
        finally:
            for (_, waiting), answer in zip(reads, answers or repeat(NOTHING), strict=False):
                if not waiting.done():  # its client may have gone
                    waiting.set_result(answer)

    async def put_session(self, account_id: str, session_id: str, account: bytes, expires_at: int) -> None:
        """Keeps what was read from the database, unless it has changed since. `expires_at`: Unix milliseconds."""
        seconds = min(TTL, expires_at // 1000 - int(time.time()))
        if seconds > 0:
            keys = [account_key(account_id), session_key(account_id, session_id)]
            await self.run(lambda client: client.eval(FILL, keys=keys, args=[account, seconds]))

    async def forget_account(self, account_id: str) -> None:
        """The account and, since they are read together, all its sessions."""
        await self._bury(account_key(account_id))

    async def forget_session(self, account_id: str, session_id: str) -> None:
        await self._bury(session_key(account_id, session_id))

    async def _bury(self, key: str) -> None:
        await self.run(lambda client: client.set(key, TOMBSTONE, ex=TTL))


async def mget_each(client: Client, reads: Sequence[Keys], *, cluster: bool) -> Sequence[Sequence[bytes | None]]:
    """One command for all; of a cluster a pipeline with a command for each, so that each touches one hash tag."""
    if not cluster:
        values = iter(await client.mget([key for keys in reads for key in keys]))
        return [[next(values) for _ in keys] for keys in reads]
    async with client.pipeline(transaction=False) as pipeline:
        commands = [pipeline.mget(keys) for keys in reads]
    return [await command for command in commands]


async def probe(client: Client) -> Any:
    """A small write: a Redis that is full or read-only answers PING as if nothing were wrong."""
    return await client.set("berth:{probe}", b"", ex=PING_INTERVAL)


@asynccontextmanager
async def open_cache(settings: Settings) -> AsyncIterator[Cache]:
    """A cache whose supervisor runs; not yet known to reach Redis."""
    cache = Cache(settings)
    if not cache.enabled:
        yield cache
        return
    async with background("redis", cache.supervise):
        yield cache


def account_key(account_id: str) -> str:
    return f"berth:{{{account_id}}}:account"


def session_key(account_id: str, session_id: str) -> str:
    return f"berth:{{{account_id}}}:session:{session_id}"
