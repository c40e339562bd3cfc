"""Live sessions and the accounts behind them, kept in Redis for at most a minute.

An account's keys carry its hash tag. What has changed is overwritten by a tombstone: a reader that is still filling in
the old value is refused.
"""

import time
from collections.abc import Iterator

from infra.metrics.counters import Family
from infra.redis.store import Store

TTL = 60  # seconds: the age that the contract allows
TOMBSTONE = b""

# KEYS: account, session. ARGV: the account's JSON, seconds to live.
FILL = """
if redis.call('GET', KEYS[1]) == '' or redis.call('GET', KEYS[2]) == '' then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('SET', KEYS[2], '1', 'EX', ARGV[2])
return 1
"""


class SessionCache:
    def __init__(self, redis: Store) -> None:
        self.redis = redis
        self.hits = self.misses = 0

    async def get(self, account_id: str, session_id: str) -> bytes | None:
        """The account's JSON when both it and the live session are known."""
        account, session = await self.redis.get(self._keys(account_id, session_id))
        found = account if account and session else None
        self.hits += found is not None
        self.misses += found is None
        return found

    async def put(self, account_id: str, session_id: str, account: bytes, expires_at: int) -> None:
        """Keeps what was read from the database, unless it has changed since. `expires_at`: Unix milliseconds."""
        seconds = min(TTL, expires_at // 1000 - int(time.time()))
        if seconds > 0:
            keys = self._keys(account_id, session_id)
            await self.redis.run(lambda client: client.eval(FILL, keys=keys, args=[account, seconds]))

    async def forget_account(self, account_id: str) -> None:
        """The account and, since they are read together, all its sessions."""
        await self._bury(self._keys(account_id, "")[0])

    async def forget_session(self, account_id: str, session_id: str) -> None:
        await self._bury(self._keys(account_id, session_id)[1])

    def _keys(self, account_id: str, session_id: str) -> tuple[str, str]:
        return self.redis.key(account_id, "account"), self.redis.key(account_id, f"session:{session_id}")

    async def _bury(self, key: str) -> None:
        await self.redis.run(lambda client: client.set(key, TOMBSTONE, ex=TTL))

    def collect(self) -> Iterator[Family]:
        if self.redis.enabled:
            reads = [({"result": "hit"}, self.hits), ({"result": "miss"}, self.misses)]
            yield Family("counter", "{service}_cache_reads", "Sessions looked up in Redis", reads)
