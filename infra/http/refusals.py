"""Wrong tokens and refused attempts: limited per client address, and told in one line per address and minute."""

from functools import partial
from logging import Logger
from typing import Any

from starlette.requests import HTTPConnection

from infra.base.kinds import RateLimit
from infra.http.clients import client_network_of
from infra.http.problems import Problem
from infra.logs.tally import Tally
from infra.redis.counters import Counters, Window
from infra.redis.store import Store

SOON = 2  # seconds that are waited with the first line of an address, so that it counts a whole burst
MOST = 1_000  # addresses that are told of one by one
OTHERS = "others"
WRONG_TOKENS = RateLimit(200, 60)

TOO_MANY = "too many wrong tokens from this address"


class Refusals:
    """`close()` writes what wasn't told yet."""

    def __init__(self, redis: Store, logger: Logger) -> None:
        self.counters = Counters(redis)
        self.logger = logger
        self.tallies: dict[tuple[str, str], Tally] = {}  # by event and address
        self.trusted: dict[str, None] = {}  # networks from which a right token came last

    async def count(self, request: HTTPConnection[Any], kind: str, limit: RateLimit = WRONG_TOKENS) -> None:
        """A wrong token of that kind. Raises a 429 Problem when there were too many from this address."""
        client = client_network_of(request)
        self.tell_wrong_token(client, kind)
        if seconds := await self.counters.take(self._window(client, kind, limit)):
            raise Problem(429, TOO_MANY, headers={"Retry-After": str(seconds)})

    def are_too_many(self, request: HTTPConnection[Any], kind: str, limit: RateLimit = WRONG_TOKENS) -> bool:
        """Whether no more guesses are looked at. An address from which a right one came is looked at all the same."""
        client = client_network_of(request)
        return client not in self.trusted and self.counters.is_full(self._window(client, kind, limit))

    def _window(self, client: str, kind: str, limit: RateLimit) -> Window:
        return Window(self.counters.redis.key(client, f"wrong {kind}s"), limit.attempts, limit.seconds)

    def trust(self, request: HTTPConnection[Any]) -> None:
        client = client_network_of(request)
        if client not in self.trusted:
            self.trusted[client] = None
            if len(self.trusted) > MOST:
                del self.trusted[next(iter(self.trusted))]

    def tell_wrong_token(self, client: str, kind: str) -> None:
        self.tell("token.refused", client, "wrong tokens", kind)

    def tell(self, event: str, client: str, message: str, kind: str = "") -> None:
        """Counts one in the line of this event and address that is due."""
        line = (event, client)
        if line not in self.tallies and len(self.tallies) >= MOST:
            line = (event, OTHERS)
        tally = self.tallies.get(line)
        if tally is None:
            forget = partial(self.tallies.pop, line)
            tally = self.tallies[line] = Tally(self.logger, message, SOON, forget)
        tally.add(kind, event=event, client=line[1])

    def close(self) -> None:
        for tally in self.tallies.values():
            tally.close()
