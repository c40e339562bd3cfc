"""Rate limits on failed sign-ins: shared through Redis, per instance without it."""

import ipaddress
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from infra.base.kinds import RateLimit
from infra.http.problems import Problem
from infra.logs import get_logger
from infra.redis.store import Store

LOCAL_COUNTERS = 10_000  # at most so many without Redis; the one that ends first gives way
REFUSALS = (401, 403)

# The window starts with the first attempt and isn't moved by later ones. A refused attempt isn't counted.
# ARGV: attempts, seconds.
COUNT = """
local count = tonumber(redis.call('GET', KEYS[1]) or '0')
if count >= tonumber(ARGV[1]) then return math.max(1, redis.call('TTL', KEYS[1])) end
if redis.call('INCR', KEYS[1]) == 1 then redis.call('EXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
# Never below none: the attempt may have been counted in a window that has ended.
UNCOUNT = "if tonumber(redis.call('GET', KEYS[1]) or '0') > 0 then redis.call('DECR', KEYS[1]) end return 0"

audit = get_logger("audit")


class SignInLimits:
    """Counts an attempt before its password is looked at, so that many at once can't slip through together."""

    def __init__(self, redis: Store, limit: RateLimit) -> None:
        self.redis = redis
        self.limit = limit
        self.local: dict[str, tuple[int, float]] = {}  # key: count, end of the window (monotonic seconds)

    @asynccontextmanager
    async def attempt(self, account: str, client: str) -> AsyncIterator[None]:
        """Wraps the check of one password.

        The attempt stays counted when the block raises a 401 or 403. Success starts the account's count afresh, but not
        the address's: one good account must not buy guesses at others. Raises a 429 Problem with Retry-After.
        """
        keys = {"account": self.redis.key(account, "attempts"), "client": self.redis.key(network(client), "attempts")}
        for name, key in keys.items():
            seconds = await self._count(key)
            if seconds:
                if name == "client":  # or a limited address could go on to use up every account's attempts
                    await self._uncount(keys["account"])
                audit.warning("sign-in attempts limited", extra={"event": "login.limited", "limit": name})
                raise Problem(429, "too many failed attempts", headers={"Retry-After": str(seconds)})
        try:
            yield
        except BaseException as error:
            if not (isinstance(error, Problem) and error.status in REFUSALS):
                await self._uncount(keys["account"])
                await self._uncount(keys["client"])
            raise
        await self._reset(keys["account"])
        await self._uncount(keys["client"])

    async def _count(self, key: str) -> int:
        """Counts one more attempt: 0, or the seconds until the window ends when there were too many already."""
        attempts, window = self.limit
        shared = await self.redis.run(lambda client: client.eval(COUNT, keys=[key], args=[attempts, window]))
        if shared is not None:
            return int(shared)
        now = time.monotonic()
        count, end = self.local.get(key, (0, 0.0))
        if end <= now:
            self.local.pop(key, None)  # to the end: the dict stays in the order in which windows end
            count, end = 0, now + window
        if count >= attempts:
            return max(1, round(end - now))
        self.local[key] = (count + 1, end)
        if len(self.local) > LOCAL_COUNTERS:
            del self.local[next(iter(self.local))]
        return 0

    async def _uncount(self, key: str) -> None:
        await self.redis.run(lambda client: client.eval(UNCOUNT, keys=[key]))
        if key in self.local:
            count, end = self.local[key]
            self.local[key] = (max(0, count - 1), end)

    async def _reset(self, key: str) -> None:
        await self.redis.run(lambda client: client.delete([key]))
        self.local.pop(key, None)


def network(client: str) -> str:
    """What counts as one client: an IPv4 address, or the /64 that one IPv6 subscriber has at least."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)
