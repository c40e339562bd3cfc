"""Redis, or nothing: session state and profiles for at most a minute, and whatever else may be forgotten.

Nothing here raises to a handler: without Redis each read is a miss and each write does nothing. Every key carries the
hash tag `{account_id}`, so that a command touches one slot of a cluster.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from infra.background import background
from infra.logs import get_logger
from infra.problems import NO_ANSWER, Unavailable, describe
from settings import Settings

TTL = 60  # seconds: the age that the contract allows
PING_INTERVAL = 1  # seconds; a lost Redis is noticed, and a new one used, within that
TOMBSTONE = b""  # in place of a value that has changed: a reader that is still filling in the old one is refused

# KEYS: account, session. ARGV: the account's JSON, seconds to live.
FILL = """
if redis.call('GET', KEYS[1]) == '' or redis.call('GET', KEYS[2]) == '' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], '1', 'EX', ARGV[2])
return 1
"""

Client = Any  # coredis.Redis[bytes] or coredis.RedisCluster[bytes], which share only a private base
Result = TypeVar("Result")

log = get_logger("system")


class Cache:
    """A client that a task of its own opens, watches and replaces when it fails."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.enabled = settings.redis_host is not None
        self.client: Client | None = None
        self.cause = NO_ANSWER
        self.tried = asyncio.Event()  # once, whether it worked or not
        self.hits = self.misses = self.errors = 0

    async def run(self, command: Callable[[Client], Awaitable[Result]]) -> Result | None:
        """What the command answers, or None when Redis is lost, absent or slower than REDIS_TIMEOUT."""
        client = self.client
        if client is None:
            return None
        try:
            async with asyncio.timeout(self.settings.redis_timeout):
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
        from infra.redis import new_client  # noqa: PLC0415 - only where there is a Redis

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
        keys = [account_key(account_id), session_key(account_id, session_id)]
        account, session = await self.run(lambda client: client.mget(keys)) or (None, None)
        found = account if account and session else None
        self.hits += found is not None
        self.misses += found is None
        return found

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
