"""Password hashes: scrypt, off the event loop, at most as many at once as there are cores.

The others queue. Log-ins come before registrations, and among those the client address that had the fewest hashes
lately: one that asks for many waits for itself, and when the queue is full it is the one that is turned away.
"""

import asyncio
import base64
import bisect
import hashlib
import hmac
import math
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from handlers.accounts.password_rules import normalized
from infra.base.errors import Unavailable
from infra.http.clients import site
from infra.metrics.counters import Family

SALT_BYTES = 16
MAX_MEMORY = 64 * 2**20  # bytes; 128 * N * r is OpenSSL's own limit, and p needs a little more
QUEUE_PER_CORE = 32
QUEUE_TIMEOUT = 5  # seconds that one may wait for its turn, however slow the cores are
HASH_SECONDS = 0.1  # until the first has told how long one takes here
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")

LATELY = 60  # seconds that a client's hashes count against its next one
KNOWN_BEFORE = 10  # hashes that one who is known may have had, and still comes before a stranger who had none
BUSY = "too many sign-ins at once"

Result = TypeVar("Result")


class Purpose(IntEnum):
    """What a hash is for; the lowest comes first."""

    SIGN_IN = 0
    REGISTRATION = 1


class Who(NamedTuple):
    """For whom a hash is made. `known`: to the account; no flood of ever new strangers comes before it."""

    client: str
    purpose: Purpose = Purpose.SIGN_IN
    known: bool = False


@dataclass(order=True, slots=True)
class Turn:
    """A hash that waits, ordered as they come."""

    purpose: Purpose
    lately: int  # hashes that the client had before this one, less KNOWN_BEFORE of one who is known
    number: int
    client: str = field(compare=False)
    started: asyncio.Future[None] = field(compare=False)
    counted: Counter[str] = field(compare=False)  # where it is one of the client's


class Cost(NamedTuple):
    """scrypt's parameters (RFC 7914, section 2): N, a power of two, r and p."""

    n: int
    r: int
    p: int

    def __str__(self) -> str:
        return f"ln={self.n.bit_length() - 1},r={self.r},p={self.p}"


# OWASP Password Storage Cheat Sheet: N=2^15, r=8, p=3 is as strong as N=2^17, r=8, p=1 in a quarter of the memory.
OWASP = Cost(2**15, 8, 3)


class Passwords:
    """Hashes and verifies in threads of its own; `close()` when done."""

    def __init__(self, cost: Cost = OWASP, queue_timeout: float = QUEUE_TIMEOUT) -> None:
        self.cost = cost
        self.queue_timeout = queue_timeout
        self.unknown = phc_string(cost, bytes(SALT_BYTES), bytes(32))
        self.cores = available_cores()
        self.executor = ThreadPoolExecutor(self.cores, thread_name_prefix="scrypt")
        self.running = 0
        self.queue: list[Turn] = []  # sorted
        self.numbers = count()
        self.lately, self.before = Counter[str](), Counter[str]()  # hashes by client, in this while and the last one
        self.turned_over = time.monotonic()
        self.hash_seconds = HASH_SECONDS

    async def hash(self, password: str, who: Who) -> str:
        """A PHC string: `$scrypt$ln=15,r=8,p=3$salt$hash`.

        Raises Unavailable when too many are waiting already.
        """
        return await self._run(who, partial(scrypt_hash, password, self.cost))

    async def verify(self, password: str, password_hash: str | None, who: Who) -> bool:
        """Whether the password matches; with no hash (an unknown account) it takes as long and is False."""
        right = await self._run(who, partial(scrypt_verify, password, password_hash or self.unknown))
        return right and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made at another cost than today's."""
        return password_hash.split("$")[2] != str(self.cost)

    def collect(self) -> Iterator[Family]:
        yield Family(
            "gauge",
            "{service}_password_hashes",
            "Password hashes at work, and waiting for a core",
            [({"state": "running"}, self.running), ({"state": "queued"}, len(self.queue))],
        )

    async def _run(self, who: Who, compute: Callable[[], Result]) -> Result:
        await self._turn(who)
        future = self.executor.submit(self._measure, compute)
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.is_closed() or loop.call_soon_threadsafe(self._end))
        return await asyncio.wrap_future(future)

    async def _turn(self, who: Who) -> None:
        """Returns when a core is there for it. Raises Unavailable when there is none in time."""
        client = site(who.client) or who.client  # a /48 has no share for each of its 65,536 networks
        lately = self._count(client) - (KNOWN_BEFORE if who.known else 0)
        turn = Turn(who.purpose, lately, next(self.numbers), client, new_future(), self.lately)
        if self.running < self.cores:
            self.running += 1
            return
        self._enqueue(turn)
        try:
            async with asyncio.timeout(self.queue_timeout):
                await turn.started
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.started.done() and not turn.started.cancelled():  # its turn had come at this very moment
                self._end()
            if isinstance(error, TimeoutError):
                raise Unavailable(BUSY, f"no free core within {self.queue_timeout} s") from None
            raise
        finally:
            self._leave(turn)

    def _count(self, client: str) -> int:
        """Counts one more hash of the client: those that it had lately, before this one."""
        if time.monotonic() - self.turned_over > LATELY:
            self.turned_over = time.monotonic()
            self.lately, self.before = Counter(), self.lately
        self.lately[client] += 1
        return self.lately[client] + self.before[client] - 1

    def _enqueue(self, turn: Turn) -> None:
        """Raises Unavailable when it would wait too long; when the queue is full, the last one has to go."""
        position = bisect.bisect(self.queue, turn)
        if position / self.cores * self.hash_seconds > self.queue_timeout or position >= self.cores * QUEUE_PER_CORE:
            turn.counted[turn.client] -= 1
            raise Unavailable(BUSY, f"{len(self.queue)} password hashes are waiting")
        self.queue.insert(position, turn)
        if len(self.queue) > self.cores * QUEUE_PER_CORE:
            last = self.queue.pop()
            last.counted[last.client] -= 1
            last.started.set_exception(Unavailable(BUSY, f"{len(self.queue)} password hashes are waiting"))

    def _leave(self, turn: Turn) -> None:
        """One that never had its turn has had no hash either."""
        if turn in self.queue:
            self.queue.remove(turn)
            turn.counted[turn.client] -= 1

    def _end(self) -> None:
        """A core is free: the next one has its turn."""
        while self.queue:
            turn = self.queue.pop(0)
            if not turn.started.done():
                turn.started.set_result(None)
                return
        self.running -= 1

    def _measure(self, compute: Callable[[], Result]) -> Result:
        started = time.monotonic()
        try:
            return compute()
        finally:
            self.hash_seconds += (time.monotonic() - started - self.hash_seconds) / 8  # a moving average

    def close(self) -> None:
        self.executor.shutdown(wait=False, cancel_futures=True)


def new_future() -> asyncio.Future[Any]:
    return asyncio.get_running_loop().create_future()


def scrypt_hash(password: str, cost: Cost) -> str:
    salt = os.urandom(SALT_BYTES)
    return phc_string(cost, salt, _scrypt(password, salt, cost))


def scrypt_verify(password: str, password_hash: str) -> bool:
    _, _, parameters, salt, key = password_hash.split("$")
    ln, r, p = (int(part.partition("=")[2]) for part in parameters.split(","))
    return hmac.compare_digest(_scrypt(password, _decode(salt), Cost(2**ln, r, p)), _decode(key))


def phc_string(cost: Cost, salt: bytes, key: bytes) -> str:
    return f"$scrypt${cost}${_encode(salt)}${_encode(key)}"


def _scrypt(password: str, salt: bytes, cost: Cost) -> bytes:
    secret = normalized(password).encode()
    return hashlib.scrypt(secret, salt=salt, n=cost.n, r=cost.r, p=cost.p, maxmem=MAX_MEMORY, dklen=32)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode().rstrip("=")


def _decode(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4))


def available_cores() -> int:
    """Cores that this process may use: its affinity, and the container's CPU limit (cgroup v2), rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = CGROUP_CPU_MAX.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup v2, or "max": no limit
        return cores
