"""How many may be connected, in all and from one client. Whoever comes after them is asked in for /health only."""

import asyncio
from collections import Counter
from functools import lru_cache
from typing import Protocol

from infra.http.clients import REMEMBERED, TrustedProxies, client_network, peer_address
from infra.logs import get_logger
from infra.logs.tally import Tally
from settings import Settings

EXTRA = 256  # connections over a limit at once; the next one takes the place of the oldest
EXTRA_SECONDS = 1.0  # in which such a one has to ask

log = get_logger("system")


class Connection(Protocol):
    transport: asyncio.Transport


class ConnectionLimits:
    """Counts connections against MAX_CONNECTIONS and MAX_CONNECTIONS_PER_CLIENT.

    A client is an IPv4 address or an IPv6 /64. The proxies in FORWARDED_ALLOW_IPS, who speak for many clients, and
    peers without an address are no clients: only the limit in all is theirs.
    """

    def __init__(self, settings: Settings) -> None:
        self.most = settings.max_connections
        self.most_of_client = settings.max_connections_per_client
        self.proxies = TrustedProxies(settings.forwarded_allow_ips)
        self.client_of = lru_cache(REMEMBERED)(self.find_client)
        self.counted: dict[Connection, str] = {}  # and whose it is; "" for a proxy
        self.clients: Counter[str] = Counter()
        self.extra: dict[Connection, None] = {}  # the oldest first
        self.refusals = Tally(log, "too many connections: these are asked in for /health only")

    def enter(self, connection: Connection, peer: str | None, *, last: bool = False) -> bool:
        """Whether the connection is within the limits; `last`: it has one of the last file descriptors, so it isn't."""
        client = self.client_of(peer) if peer else ""
        if last:
            limit = "file descriptors"
        elif len(self.counted) >= self.most:
            limit = "MAX_CONNECTIONS"
        elif client and self.clients[client] >= self.most_of_client:
            limit = "MAX_CONNECTIONS_PER_CLIENT"
        else:
            self.counted[connection] = client
            if client:
                self.clients[client] += 1
            return True
        self.refusals.add(limit=limit, client=peer)
        self.extra[connection] = None
        if len(self.extra) > EXTRA:
            self.displace()
        return False

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
        client = self.counted.pop(connection, "")
        if client:
            self.clients[client] -= 1
            if not self.clients[client]:
                del self.clients[client]
