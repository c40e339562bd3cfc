"""How many may be connected, in all and from one client. Whoever comes after them is asked in for /health only."""

import asyncio
from collections import Counter
from functools import lru_cache
from operator import itemgetter
from typing import Protocol

from infra.http.clients import REMEMBERED, TrustedProxies, client_network, peer_address, site
from infra.logs import get_logger
from infra.logs.tally import Tally
from settings import Settings

EXTRA = 256  # connections over a limit at once; the next one takes the place of the oldest
OF_A_SITE = 4  # times what a client has: an IPv6 /48
FAIR = 16  # connections that a client keeps when there are too many in all
EXTRA_SECONDS = 1.0  # in which such a one has to ask

log = get_logger("system")


class Connection(Protocol):
    transport: asyncio.Transport

    def is_idle(self) -> bool:
        """Whether nothing is asked on it."""


class ConnectionLimits:
    """Counts connections against MAX_CONNECTIONS and MAX_CONNECTIONS_PER_CLIENT.

    A client is an IPv4 address or an IPv6 /64, whose /48 has a limit, too. When there are too many in all, the client
    that has the most loses one that is idle. The proxies in FORWARDED_ALLOW_IPS, who speak for many clients, and
    peers without an address are no clients: only the limit in all is theirs.
    """

    def __init__(self, settings: Settings) -> None:
        self.most = settings.max_connections
        self.most_of_client = settings.max_connections_per_client
        self.proxies = TrustedProxies(settings.forwarded_allow_ips)
        self.client_of = lru_cache(REMEMBERED)(self.find_client)
        self.counted: dict[Connection, str] = {}  # and whose it is; "" for a proxy
        self.clients, self.sites = Counter[str](), Counter[str]()
        self.extra: dict[Connection, None] = {}  # the oldest first
        self.refusals = Tally(log, "too many connections: these are asked in for /health only")

    def enter(self, connection: Connection, peer: str | None, *, last: bool = False) -> bool:
        """Whether the connection is within the limits; `last`: it has one of the last file descriptors, so it isn't."""
        client = self.client_of(peer) if peer else ""
        if last:
            limit = "file descriptors"
        elif client and self.clients[client] >= self.most_of_client:
            limit = "MAX_CONNECTIONS_PER_CLIENT"
        elif client and self.sites[site(client) or ""] >= self.most_of_client * OF_A_SITE:
            limit = "MAX_CONNECTIONS_PER_CLIENT, of a /48"
        elif len(self.counted) >= self.most and not self.make_room():
            limit = "MAX_CONNECTIONS"
        else:
            self.counted[connection] = client
            self.count(client, 1)
            return True
        self.refusals.add(limit=limit, client=peer)
        self.extra[connection] = None
        if len(self.extra) > EXTRA:
            self.displace()
        return False

    def make_room(self) -> bool:
        """Of the client that has the most, and more than is FAIR, the oldest idle one goes; False: there is none."""
        client, number = max(self.clients.items(), key=itemgetter(1), default=("", 0))
        if number <= FAIR:
            return False
        for connection, whose in self.counted.items():
            if whose == client and connection.is_idle():
                self.leave(connection)
                connection.transport.abort()
                return True
        return False

    def count(self, client: str, more: int) -> None:
        for counter, of in ((self.clients, client), (self.sites, site(client))):
            if of:
                counter[of] += more
                if not counter[of]:
                    del counter[of]

    def displace(self) -> bool:
        """Makes room for one more of the extra connections, if there are any."""
        for connection in self.extra:
            del self.extra[connection]
            connection.transport.abort()
            return True
        return False

    def find_client(self, peer: str) -> str:
        """Whom a peer's address stands for: "" for a proxy."""
        address = peer_address(peer)
        return "" if address is None or address in self.proxies else client_network(address)

    def leave(self, connection: Connection) -> None:
        self.extra.pop(connection, None)
        self.count(self.counted.pop(connection, ""), -1)
