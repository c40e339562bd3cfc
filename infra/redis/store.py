"""Redis, or nothing: what may be forgotten.

Nothing here raises to a handler: without Redis each read is a miss and each write does nothing. A key carries a hash
tag, so that a command touches one slot of a cluster.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import repeat
from typing import Any, TypeVar

from infra.base.background import background
from infra.base.errors import NO_ANSWER, Unavailable, describe
from infra.base.time_limits import TimeLimit
from infra.base.times import now_ms
from infra.logs import get_logger
from infra.metrics.counters import Family
from settings import Settings

PING_INTERVAL = 1  # seconds; a lost Redis is noticed, and a new one used, within that
ENOUGH_READS = 100  # go out without waiting for more
HUNG_UP = "EndOfStream"  # in what the client says of it
MOST_TOLD = 10  # refusals that are remembered, so that each is told once

Keys = Sequence[str]
Values = Sequence[bytes | None]
Client = Any  # coredis.Redis[bytes] or coredis.RedisCluster[bytes], which share only a private base
Result = TypeVar("Result")

log = get_logger("system")


class Store:
    """A client that a task of its own opens, watches and replaces when it fails."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.enabled = settings.redis_host is not None
        self.client: Client | None = None
        self.time_limit = TimeLimit(settings.redis_timeout)
        self.cause = NO_ANSWER
        self.tried = asyncio.Event()  # once, whether it worked or not
        self.returned_at = 0  # Unix milliseconds: what was written before may say what was so before Redis was lost
        self.before_use: list[Callable[[Client], Awaitable[None]]] = []  # what a client does before others get it
        self.errors = 0
        self.told: set[str] = set()  # why a command was refused
        self.reads: list[tuple[Keys, asyncio.Future[Values]]] = []  # not yet sent
        self.senders: set[asyncio.Task[None]] = set()

    def key(self, tag: str, name: str = "") -> str:
        """A key of this service; keys with the same tag are on the same node of a cluster."""
        return f"{self.settings.name}:{{{tag}}}:{name}" if name else f"{self.settings.name}:{{{tag}}}"

    async def run(self, command: Callable[[Client], Awaitable[Result]]) -> Result | None:
        """What the command answers, or None when Redis is lost, absent or slower than REDIS_TIMEOUT."""
        client = self.client
        if client is None:
            return None
        try:
            with self.time_limit():
                return await command(client)
        except Exception as error:  # noqa: BLE001 - coredis raises its own, OSError, RuntimeError and groups of them
            from infra.redis.commands import is_of_one_command  # noqa: PLC0415 - only where there is a Redis

            self.errors += 1
            if is_of_one_command(error):
                self._tell_once(describe(error))
                return None
            # coredis may lose a slot of its pool whenever a connection breaks: start afresh rather than count them
            if self.client is client:
                self.client, self.cause = None, describe(error)
            return None

    def _tell_once(self, refusal: str) -> None:
        if refusal not in self.told:
            self.told = {refusal, *list(self.told)[:MOST_TOLD]}
            log.warning("Redis refuses a command: %s", refusal)

    async def ping(self) -> None:
        """Raises Unavailable."""
        await self.tried.wait()
        if await self.run(self._probe) is None:
            raise Unavailable("Redis is unavailable", self.cause)

    async def get(self, keys: Keys) -> Values:
        """Together with what else is read now: a command for each costs four times as much as one for all."""
        if self.client is None:
            return [None] * len(keys)
        answer: asyncio.Future[Values] = asyncio.get_running_loop().create_future()
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
        answers: Sequence[Values] | None = None
        try:
            cluster = self.settings.redis_cluster
            answers = await self.run(lambda client: mget_each(client, [keys for keys, _ in reads], cluster=cluster))
        finally:
            for (keys, waiting), answer in zip(reads, answers or repeat(None), strict=False):
                if not waiting.done():  # its client may have gone
                    waiting.set_result([None] * len(keys) if answer is None else answer)

    async def supervise(self) -> None:
        """Keeps a client open until cancelled."""
        from infra.redis.client import first_words, new_client  # noqa: PLC0415 - only where there is a Redis
        from infra.redis.commands import try_commands  # noqa: PLC0415

        known_lost = False
        while True:
            try:
                async with contextlib.AsyncExitStack() as stack:
                    async with asyncio.timeout(self.settings.redis_timeout):
                        client = await stack.enter_async_context(new_client(self.settings))
                        await try_commands(client, self.key("trial"))
                        self.returned_at = now_ms() if self.tried.is_set() else 0
                        await self._prepare(client)
                    self.client = client
                    self.tried.set()
                    log.info("Redis is back" if known_lost else "Redis connected")
                    known_lost = False
                    await self._watch()
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round may work
                self.cause = describe(error)
                if HUNG_UP in self.cause:
                    self.cause = await first_words(self.settings) or self.cause
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
            await self.run(self._prepare)

    async def _prepare(self, client: Client) -> bool:
        """Also once a second: for what could not be done meanwhile, and for what Redis may have forgotten.

        Broken connections don't tell that it has started again: coredis makes new ones.
        """
        await self._probe(client)
        for work in self.before_use:
            await work(client)
        return True

    async def _probe(self, client: Client) -> Any:
        """A small write: a Redis that is full or read-only answers PING as if nothing were wrong."""
        return await client.set(self.key("probe"), b"", ex=PING_INTERVAL)

    def collect(self) -> Iterator[Family]:
        if self.enabled:
            yield Family("gauge", "{service}_redis_up", "Whether Redis can be used", [({}, self.client is not None)])
            yield Family("counter", "{service}_redis_errors", "Redis commands that failed", [({}, self.errors)])


async def mget_each(client: Client, reads: Sequence[Keys], *, cluster: bool) -> Sequence[Values]:
    """One command for all; of a cluster a pipeline with a command for each, so that each touches one hash tag."""
    if not cluster:
        values = iter(await client.mget([key for keys in reads for key in keys]))
        return [[next(values) for _ in keys] for keys in reads]
    async with client.pipeline(transaction=False) as pipeline:
        commands = [pipeline.mget(keys) for keys in reads]
    return [await command for command in commands]


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """A store whose supervisor runs; not yet known to reach Redis."""
    store = Store(settings)
    if not store.enabled:
        yield store
        return
    async with background("redis", store.supervise):
        yield store
