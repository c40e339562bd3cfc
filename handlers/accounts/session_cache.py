"""Live sessions and the accounts behind them, kept in Redis for at most a minute.

An account's keys carry its hash tag. What changes is overwritten by a tombstone, before the change is committed: a
reader that is still filling in the old value is refused. Whoever has changed it doesn't trust what Redis says of it,
and overwrites it again when Redis was lost, or has forgotten; nobody trusts what is there from before that.
"""

import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

from infra.base.times import now_ms
from infra.metrics.counters import Family
from infra.redis.store import Store

TTL = 60  # seconds: the age that the contract allows
TTL_MS = TTL * 1000
TOMBSTONE = b""
DISTRUST = TTL + 15  # seconds: then nothing is left of what a slow reader put there before the commit
BATCH = 500  # tombstones at a time

# KEYS: account, session. ARGV: the account's JSON, seconds to live, when both were read from the database.
FILL = """
if redis.call('GET', KEYS[1]) == '' or redis.call('GET', KEYS[2]) == '' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], ARGV[3], 'EX', ARGV[2])
return 1
"""


class SessionCache:
    def __init__(self, redis: Store) -> None:
        self.redis = redis
        self.changed: dict[str, float] = {}  # keys: until when they aren't trusted here (monotonic seconds)
        self.unburied: set[str] = set()  # those of them that may have no tombstone
        self.returned_at = 0  # as far as that is known
        self.hits = self.misses = 0
        redis.before_use.append(self._bury_again)

    async def get(self, account_id: str, session_id: str) -> bytes | None:
        """The account's JSON when both it and the live session are known."""
        keys = self._keys(account_id, session_id)
        account, read_at = await self.redis.get(keys)
        found = account if account and read_at and self._trusted(keys, int(read_at)) else None
        self.hits += found is not None
        self.misses += found is None
        return found

    def _trusted(self, keys: tuple[str, str], read_at: int) -> bool:
        if self.changed and not self.changed.keys().isdisjoint(keys):
            return False
        return read_at >= self.redis.returned_at and read_at >= now_ms() - TTL_MS

    async def put(self, account_id: str, session_id: str, account: bytes, *, read_at: int, expires_at: int) -> None:
        """Keeps what was read from the database, unless it has changed since. Both times: Unix milliseconds."""
        seconds = min(TTL, expires_at // 1000 - int(time.time()))
        if seconds > 0:
            keys, args = self._keys(account_id, session_id), [account, seconds, read_at]
            await self.redis.run(lambda client: client.eval(FILL, keys=keys, args=args))

    async def forget_account(self, account_id: str) -> None:
        """The account and, since they are read together, all its sessions. For the transaction that changes it."""
        await self._bury(self._keys(account_id, "")[0])

    async def forget_session(self, account_id: str, session_id: str) -> None:
        """For the transaction that ends it: before the commit, so that no lost answer and no crash comes between."""
        await self._bury(self._keys(account_id, session_id)[1])

    def _keys(self, account_id: str, session_id: str) -> tuple[str, str]:
        return self.redis.key(account_id, "account"), self.redis.key(account_id, f"session:{session_id}")

    async def _bury(self, key: str) -> None:
        if not self.redis.enabled:
            return
        self._drop_what_expired()
        self.changed.pop(key, None)  # to the end: the dict stays in the order in which they end
        self.changed[key] = time.monotonic() + DISTRUST
        if not await self.redis.run(lambda client: client.set(key, TOMBSTONE, ex=TTL)):
            self.unburied.add(key)

    async def _bury_again(self, client: Any) -> None:
        """What could not be buried; all that was buried lately, when Redis may have forgotten."""
        self._drop_what_expired()
        if self.returned_at != self.redis.returned_at or await self._has_forgotten(client):
            self.returned_at = self.redis.returned_at
            self.unburied.update(self.changed)
        while keys := list(islice(self.unburied, BATCH)):
            async with client.pipeline(transaction=False) as pipeline:
                commands = [pipeline.set(key, TOMBSTONE, ex=TTL) for key in keys]
            for key, command in zip(keys, commands, strict=True):
                await command
                self.unburied.discard(key)

    async def _has_forgotten(self, client: Any) -> bool:
        """Whether the newest tombstone is gone: Redis has started again, or a replica has taken its place."""
        if not self.changed:
            return False
        key, end = next(reversed(self.changed.items()))
        return time.monotonic() < end - DISTRUST + TTL / 2 and await client.get(key) != TOMBSTONE

    def _drop_what_expired(self) -> None:
        while self.changed and next(iter(self.changed.values())) < time.monotonic():
            key = next(iter(self.changed))
            del self.changed[key]
            self.unburied.discard(key)

    def collect(self) -> Iterator[Family]:
        if self.redis.enabled:
            reads = [({"result": "hit"}, self.hits), ({"result": "miss"}, self.misses)]
            yield Family("counter", "{service}_cache_reads", "Sessions looked up in Redis", reads)
