"""Counts within windows of time, for limits: shared through Redis, per instance without it.

An attempt in flight holds its place and is no failure: who finds all places held may wait for one. What an instance has
been told of a count, or has counted itself while Redis was lost, it keeps: a Redis that comes back without it is told.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from infra.redis.store import Client, Store

MOST = 10_000  # counts that are kept here; the one that began first gives way
IN_FLIGHT = 60  # seconds after which what is in flight has died with its instance
BUSY = -1
AFRESH = -1  # in place of what is added to a count: it starts afresh
BATCH = 1_000  # counts of which Redis is told at once
MARK = 60  # seconds that the mark of an instance lives, which sets it again in time

# Each window has two keys: its count, and the weight that is in flight. It begins with the first failure; later ones
# don't move it. ARGV: for each window first the count that an instance knows, and the milliseconds that are left of it.
LEARN = f"""
local counts, held = {{}}, {{}}
for i = 1, #KEYS / 2 do
    local known, rest = tonumber(ARGV[2 * i - 1]), ARGV[2 * i]
    counts[i] = tonumber(redis.call('GET', KEYS[2 * i - 1]) or '0')
    held[i] = tonumber(redis.call('GET', KEYS[2 * i]) or '0')
    if known > counts[i] then
        counts[i] = known
        redis.call('SET', KEYS[2 * i - 1], known, 'PX', rest)
    end
end
local function hold(i, weight)
    if weight > 0 then redis.call('SET', KEYS[2 * i], weight, 'EX', {IN_FLIGHT}) else redis.call('DEL', KEYS[2 * i]) end
end
"""
# Then its limit, its weight, that when the first window is empty, and whether it refuses.
BEGIN = f"""{LEARN}
local open, answer = 1, {{}}
for i = 1, #counts do
    local limit, weight, first, refuses = unpack(ARGV, 2 * #counts + 4 * i - 3, 2 * #counts + 4 * i)
    if refuses == '1' and counts[i] + held[i] >= tonumber(limit) then open = 0 end
    weight = tonumber(counts[1] + held[1] == 0 and first or weight)
    answer[i] = {{counts[i], math.max(0, redis.call('TTL', KEYS[2 * i - 1])), held[i], weight}}
end
for i = 1, open * #counts do hold(i, held[i] + answer[i][4]) end
return {{open, answer}}
"""
# Then the weight that was in flight, what is added to the count, or AFRESH, and the window's seconds.
END = f"""{LEARN}
local answer = {{}}
for i = 1, #counts do
    local weight, added, seconds = unpack(ARGV, 2 * #counts + 3 * i - 2, 2 * #counts + 3 * i)
    hold(i, held[i] - weight)
    if added == '{AFRESH}' then redis.call('DEL', KEYS[2 * i - 1]) end
    for n = 1, tonumber(added) do
        if redis.call('INCR', KEYS[2 * i - 1]) == 1 then redis.call('EXPIRE', KEYS[2 * i - 1], seconds) end
    end
    local count = tonumber(redis.call('GET', KEYS[2 * i - 1]) or '0')
    answer[i] = {{count, math.max(0, redis.call('TTL', KEYS[2 * i - 1])), 0, 0}}
end
return {{1, answer}}
"""
# Then its limit and the window's seconds.
TAKE = f"""{LEARN}
local open = counts[1] < tonumber(ARGV[3])
if open and redis.call('INCR', KEYS[1]) == 1 then redis.call('EXPIRE', KEYS[1], ARGV[4]) end
local count = counts[1] + (open and 1 or 0)
return {{open and 1 or 0, {{{{count, math.max(0, redis.call('TTL', KEYS[1])), held[1], 1}}}}}}
"""
# ARGV: the count that an instance knows, and the milliseconds that are left of it.
TELL = """
if tonumber(ARGV[1]) > tonumber(redis.call('GET', KEYS[1]) or '0') then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 0
"""


class Window(NamedTuple):
    """What is counted, and how much of it within `seconds` is too much.

    `first`: its weight when the first window of the attempt is empty. `refuses`: false for one that only counts.
    The keys of one attempt have the same hash tag.
    """

    key: str
    limit: int
    seconds: int
    weight: int = 1
    first: int = 1
    refuses: bool = True


class Place(NamedTuple):
    """What an attempt has taken in each window; nothing when it got no place.

    `waits`: the seconds until a full one is empty again, BUSY when it is full of what is in flight, or 0.
    """

    windows: Sequence[Window]
    weights: Sequence[int]
    waits: Sequence[int]

    @property
    def wait(self) -> int:
        """Of those that refuse: the longest, or BUSY when that is all."""
        waits = [wait for window, wait in zip(self.windows, self.waits, strict=True) if window.refuses]
        return max(waits) or min(waits)


class State(NamedTuple):
    failed: int
    left: int  # seconds
    held: int
    weight: int


@dataclass(slots=True)
class Known:
    """What this instance knows of a count."""

    count: int = 0
    end: float = 0.0  # of the window, in monotonic seconds
    held: int = 0  # the weight that is in flight here
    life: int = 0  # of Redis, in which it was told of this

    @property
    def left(self) -> int:
        return max(1, round(self.end - time.monotonic())) if self.count else 0

    @property
    def milliseconds(self) -> int:
        return max(1, int((self.end - time.monotonic()) * 1000))

    def add(self, more: int, seconds: int) -> None:
        if more > 0 and not self.count:
            self.end = time.monotonic() + seconds
        self.count = max(0, self.count + more) if more >= 0 else 0


class Counters:
    def __init__(self, redis: Store) -> None:
        self.redis = redis
        self.known: dict[str, Known] = {}
        self.life = 1  # of Redis: one that has lost the mark has begun another
        self.marked_at = 0.0
        self.mark = redis.key(f"counters:{os.urandom(8).hex()}")
        redis.before_use.append(self._remind)

    async def begin(self, windows: Sequence[Window]) -> Place:
        """Takes a place in each window, or in none when one that refuses is full."""
        limits = [value for w in windows for value in (w.limit, w.weight, w.first, int(w.refuses))]
        answer = await self._eval(BEGIN, windows, [*self._told(windows), *limits])
        is_open, states = answer or self._begin_here(windows)
        waits = [wait_of(window, state) for window, state in zip(windows, states, strict=True)]
        weights = [state.weight for state in states] if is_open else []
        for window, weight in zip(windows, weights, strict=False):
            self._know(window.key).held += weight
        self._forget_empty(windows)
        return Place(windows, weights, waits)

    def _begin_here(self, windows: Sequence[Window]) -> tuple[bool, list[State]]:
        found = [self._know(window.key) for window in windows]
        is_empty = not (found[0].count or found[0].held)
        states = [
            State(known.count, known.left, known.held, window.first if is_empty else window.weight)
            for window, known in zip(windows, found, strict=True)
        ]
        full = (w.refuses and s.failed + s.held >= w.limit for w, s in zip(windows, states, strict=True))
        return not any(full), states

    async def end(self, place: Place, added: Sequence[int]) -> None:
        """Gives the place back; `added` is what each window counts, or AFRESH."""
        arguments = self._told(place.windows)
        for window, weight, more in zip(place.windows, place.weights, added, strict=True):
            arguments += [weight, more, window.seconds]
            known = self._know(window.key)
            known.held = max(0, known.held - weight)
            known.add(more, window.seconds)
        await self._eval(END, place.windows, arguments)
        self._forget_empty(place.windows)

    async def take(self, window: Window) -> int:
        """Counts one, which is 0; or the seconds until the window, which is full, is empty again."""
        known = self._know(window.key)
        if known.count >= window.limit and known.life == self.life:
            return known.left  # without asking again
        answer = await self._eval(TAKE, [window], [*self._told([window]), window.limit, window.seconds])
        known = self._know(window.key)
        if answer:
            return 0 if answer[0] else max(1, known.left)
        if known.count >= window.limit:
            return known.left
        known.add(1, window.seconds)
        return 0

    def is_full(self, window: Window) -> bool:
        """As far as this instance knows."""
        return window.key in self.known and self._know(window.key).count >= window.limit

    def _forget_empty(self, windows: Sequence[Window]) -> None:
        """Whoever is refused, under ever new names, must not push out what counts."""
        for window in windows:
            known = self.known.get(window.key)
            if known and not (known.count or known.held):
                del self.known[window.key]

    def _know(self, key: str) -> Known:
        known = self.known.get(key)
        if known and (not known.count or known.end > time.monotonic()):
            return known
        self.known.pop(key, None)  # to the end: the dict stays in the order in which windows begin
        known = self.known[key] = Known(held=known.held if known else 0)
        if len(self.known) > MOST:
            del self.known[next(iter(self.known))]
        return known

    async def _remind(self, client: Client) -> None:
        """Tells Redis of all that it may have lost, or not been there to see: other instances count there, too."""
        lost = await client.get(self.mark) is None
        self.life += lost and self.marked_at > 0
        if lost or time.monotonic() > self.marked_at + MARK / 2:
            await client.set(self.mark, b"", ex=MARK)
            self.marked_at = time.monotonic()
        untold = [key for key, known in self.known.items() if known.count and known.life != self.life][:BATCH]
        if untold:
            async with client.pipeline(transaction=False) as pipeline:
                for key in untold:
                    known = self._know(key)
                    pipeline.eval(TELL, keys=[key], args=[known.count, known.milliseconds])
            for key in untold:
                self._know(key).life = self.life

    def _told(self, windows: Sequence[Window]) -> list[int]:
        """What Redis is told of each window before all else: what it may have lost, or not been there to see."""
        found = [self._know(window.key) for window in windows]
        return [value for k in found for value in ((0, 0) if k.life == self.life else (k.count, k.milliseconds))]

    async def _eval(
        self, script: str, windows: Sequence[Window], arguments: Sequence[int]
    ) -> tuple[bool, list[State]] | None:
        """What Redis says of them; this instance learns it. None: it is lost."""
        keys = [key for window in windows for key in (window.key, f"{window.key}:held")]
        life = self.life
        answer = await self.redis.run(lambda client: client.eval(script, keys=keys, args=arguments))
        if answer is None:
            for window in windows:
                self._know(window.key).life = 0  # it may have been told, or not
            return None
        states = [State(*state) for state in answer[1]]
        for window, state in zip(windows, states, strict=True):
            known = self._know(window.key)
            known.count, known.end, known.life = state.failed, time.monotonic() + state.left, life
        return bool(answer[0]), states


def wait_of(window: Window, state: State) -> int:
    if state.failed >= window.limit:
        return max(1, state.left)
    return BUSY if state.failed + state.held >= window.limit else 0
