"""How often a password may be guessed, and a name asked for: shared through Redis, per instance without it.

docs/security.md has the rule, and the guessing rate that it leaves.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from infra.base.errors import Duplicate, Unavailable
from infra.base.kinds import RateLimit
from infra.http.clients import site
from infra.http.problems import Problem
from infra.http.refusals import Refusals
from infra.redis.counters import AFRESH, Counters, Place, Window
from infra.redis.store import Store

STRANGERS = 5  # times the limit: failures at one name from all clients that its account doesn't know
ADDRESS = 10  # times the limit: what one address may weigh
ANOTHER_NAME = 5  # the weight of the first failure at a name; the next ones weigh 1
SITE = 8  # times what an address has: an IPv6 /48
WAIT = 10  # seconds that one may wait until an attempt in flight ends
WAITING = 64  # at most, for the same
POLL = 0.05  # seconds
REFUSALS = (401, 403)
LIMITED = {"login.limited": "sign-in attempts limited", "names.limited": "registrations and changes of names limited"}


class Guess(NamedTuple):
    """An attempt at a password. `looked_at`: whether it may be right."""

    looked_at: bool


class SignInLimits:
    """An attempt takes its place before its password is looked at, so that many at once can't slip through together."""

    def __init__(self, redis: Store, refusals: Refusals, sign_ins: RateLimit, names: RateLimit) -> None:
        self.key = redis.key
        self.counters = Counters(redis)
        self.refusals = refusals
        self.sign_ins = sign_ins
        self.names = names
        self.turns: dict[str, asyncio.Lock] = {}
        self.waiting = Counter[str]()

    @asynccontextmanager
    async def sign_in(self, login: str, account_id: str | None, client: str, *, known: bool) -> AsyncIterator[Guess]:
        """Wraps the check of one password. `login` is the name as it is compared, `client` a network.

        The attempt is counted when the block raises a 401 or 403. Success starts the client's count at this account
        afresh, and no other: one good account must not buy guesses at others. Raises a 429 Problem with Retry-After.
        """
        name = hashlib.sha256(login.encode()).hexdigest()
        own = self._window(client, f"sign-ins:{name}")
        # All names of an account have one count here, but it refuses without a word: a 429 would tell whose they are.
        account = self._window(client, f"sign-ins:of:{account_id or name}", refuses=False)
        address = self._window(client, "sign-ins", ADDRESS, first=ANOTHER_NAME, refuses=not known)
        around = site(client)
        async with AsyncExitStack() as stack:
            turn = own.key if known else client  # a known one doesn't wait behind the strangers of its address
            place = await stack.enter_async_context(
                self._place(client, [own, account, address], (AFRESH, AFRESH, 0), turn)
            )
            if not known:
                strangers = self._window(name, "strangers", STRANGERS)
                await stack.enter_async_context(self._place(client, [strangers], (0,)))
            if around:
                weight = place.weights[2]
                wider = self._window(around, "sign-ins", ADDRESS * SITE, weight=weight, first=weight, refuses=not known)
                await stack.enter_async_context(self._place(client, [wider], (0,)))
            yield Guess(looked_at=place.waits[1] <= 0)

    @asynccontextmanager
    async def confirmation(self, account_id: str, session_id: str, client: str) -> AsyncIterator[None]:
        """Wraps the check of a password that a session was asked for: its own count, whatever happens elsewhere."""
        window = self._window(account_id, f"confirmations:{session_id}")
        async with self._place(client, [window], (AFRESH,)):
            yield

    @asynccontextmanager
    async def naming(self, client: str, account_id: str = "") -> AsyncIterator[None]:
        """Wraps a registration or a change of names: its answer tells whether a name is taken. Raises a 429 Problem."""
        attempts, seconds = self.names
        limits = {client: attempts, site(client): attempts * SITE, account_id: attempts}
        async with AsyncExitStack() as stack:
            for tag, limit in limits.items():
                if tag:
                    window = Window(self.key(tag, "names"), limit, seconds)
                    await stack.enter_async_context(self._place(client, [window], (1,), event="names.limited"))
            yield

    def _window(self, tag: str, name: str, times: int = 1, **options: Any) -> Window:
        attempts, seconds = self.sign_ins
        return Window(self.key(tag, name), attempts * times, seconds, **options)

    @asynccontextmanager
    async def _place(
        self,
        client: str,
        windows: Sequence[Window],
        success: Sequence[int],
        turn: str = "",
        *,
        event: str = "login.limited",
    ) -> AsyncIterator[Place]:
        """A place in each window while the block runs, then it is counted; `success` is what that counts."""
        place = await self._take_place(client, windows, turn or windows[0].key, event)
        added: Sequence[int] = [0] * len(windows)
        try:
            yield place
            added = success
        except Problem as problem:
            if problem.status in REFUSALS:
                added = place.weights
            raise
        except Duplicate:
            added = place.weights
            raise
        finally:
            await self.counters.end(place, added)

    async def _take_place(self, client: str, windows: Sequence[Window], turn: str, event: str) -> Place:
        """Waits while what is in flight fills them: of those with the same `turn` one looks whether it still does.

        Raises a 429 Problem, or Unavailable.
        """
        if self.waiting[turn] >= WAITING:
            raise Unavailable("too many sign-ins at once", "too many wait for those in flight")
        lock = self.turns.setdefault(turn, asyncio.Lock())
        self.waiting[turn] += 1
        try:
            async with asyncio.timeout(WAIT), lock:
                while not (place := await self.counters.begin(windows)).weights:
                    if place.wait > 0:
                        self.refusals.tell(event, client, LIMITED[event])
                        raise Problem(429, "too many attempts", headers={"Retry-After": str(place.wait)})
                    await asyncio.sleep(POLL)
                return place
        except TimeoutError:
            raise Unavailable("too many sign-ins at once", "those in flight did not end") from None
        finally:
            self.waiting[turn] -= 1
            if not self.waiting[turn]:
                del self.waiting[turn], self.turns[turn]
