"""Password hashes: scrypt, off the event loop, at most as many at once as there are cores."""

import asyncio
import base64
import hashlib
import hmac
import math
import os
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple, ParamSpec, TypeVar

from infra.base.errors import Unavailable
from infra.metrics.counters import Family

SALT_BYTES = 16
MAX_MEMORY = 64 * 2**20  # bytes; 128 * N * r is OpenSSL's own limit, and p needs a little more
QUEUE_PER_CORE = 32
QUEUE_TIMEOUT = 5  # seconds that one may wait for its turn, however slow the cores are
HASH_SECONDS = 0.1  # until the first has told how long one takes here
CGROUP_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


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
        self.pending = 0
        self.hash_seconds = HASH_SECONDS

    async def hash(self, password: str) -> str:
        """A PHC string: `$scrypt$ln=15,r=8,p=3$salt$hash`.

        Raises Unavailable when too many are waiting already.
        """
        return await self._run(scrypt_hash, password, self.cost)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Whether the password matches; with no hash (an unknown account) it takes as long and is False."""
        return await self._run(scrypt_verify, password, password_hash or self.unknown) and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made at another cost than today's."""
        return password_hash.split("$")[2] != str(self.cost)

    def collect(self) -> Iterator[Family]:
        running = min(self.pending, self.cores)
        yield Family(
            "gauge",
            "{service}_password_hashes",
            "Password hashes at work, and waiting for a core",
            [({"state": "running"}, running), ({"state": "queued"}, self.pending - running)],
        )

    async def _run(
        self, function: Callable[Parameters, Result], *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Result:
        turn_in = (self.pending / self.cores - 1) * self.hash_seconds
        if self.pending >= self.cores * (1 + QUEUE_PER_CORE) or turn_in > self.queue_timeout:
            raise Unavailable("too many sign-ins at once", f"{self.pending} password hashes are waiting")
        self.pending += 1
        future = self.executor.submit(self._measure, partial(function, *args, **kwargs))
        try:
            hashing = asyncio.wrap_future(future)
            await asyncio.wait([hashing], timeout=self.queue_timeout)
            if future.cancel():  # it has not begun
                raise Unavailable("too many sign-ins at once", f"no free core within {self.queue_timeout} s")
            return await hashing
        finally:
            future.cancel()
            self.pending -= 1

    def _measure(self, compute: Callable[[], Result]) -> Result:
        started = time.monotonic()
        try:
            return compute()
        finally:
            self.hash_seconds += (time.monotonic() - started - self.hash_seconds) / 8  # a moving average

    def close(self) -> None:
        self.executor.shutdown(wait=False, cancel_futures=True)


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
    # NFKC: the same password typed on another keyboard may arrive in other code points (NIST SP 800-63B 3.1.1.2)
    secret = unicodedata.normalize("NFKC", password).encode()
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
