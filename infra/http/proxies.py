"""Who asks and how, when a proxy of FORWARDED_ALLOW_IPS says it. Middleware in pure ASGI."""

import functools
import re
from collections.abc import Awaitable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from starlette.types import ASGIApp, Receive, Scope, Send

from infra.http.fields import members

LONGEST = 64  # characters of an address and its port
MAPPED = IPv6Network("::ffff:0:0/96")  # IPv4 addresses, as a socket of IPv6 shows them (RFC 4291, 2.5.5.2)
HOP = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|([0-9A-Fa-f:.]+)")


class TrustedProxies:
    """Addresses and networks, comma-separated; `*` is everybody."""

    def __init__(self, proxies: str) -> None:
        self.everybody = proxies == "*"
        self.networks = () if self.everybody else tuple(network_of(text) for text in proxies.split(","))

    def __contains__(self, address: str | None) -> bool:
        """Whether an address that `address_of` has made is one of them."""
        return self.everybody or (address is not None and self.has(address))

    def has(self, address: str) -> bool:
        return any(ip_address(address) in network for network in self.networks)


class ForwardedHeaders:
    """Takes client and scheme from X-Forwarded-For and X-Forwarded-Proto, when a trusted proxy sends them.

    The client is the nearest that isn't a trusted proxy. What isn't an address names nobody: whoever sent it counts.
    """

    def __init__(self, app: ASGIApp, proxies: str) -> None:
        self.app = app
        self.proxies = TrustedProxies(proxies)
        self.look_up = functools.lru_cache(maxsize=1024)(self.find)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] == "http":
            peer, port = scope.get("client") or (None, 0)
            address, trusted = self.look_up(peer)
            if address != peer:
                scope["client"] = (address, port)
            if trusted:
                self.read(scope)
        return self.app(scope, receive, send)

    def find(self, peer: str | None) -> tuple[str | None, bool]:
        """The peer's address, and whether it is a proxy's that is trusted. The socket of a file system has none."""
        address = address_of(peer) if peer else None
        return address or peer, address in self.proxies

    def read(self, scope: Scope) -> None:
        hops, protocols = [], []
        for name, value in scope["headers"]:
            if name == b"x-forwarded-for":
                hops.append(value.decode("latin-1"))
            elif name == b"x-forwarded-proto":
                protocols.append(value.decode("latin-1"))
        if protocols and (said := [one.lower() for one in members(protocols)]) and said[0] in {"http", "https"}:
            scope["scheme"] = said[0]
        if hops and (client := self.client_of(members(hops))):
            scope["client"] = (client, 0)

    def client_of(self, hops: Sequence[str]) -> str | None:
        """Each proxy has added whom it heard from at the end."""
        client = None
        for hop in reversed(hops):
            address = address_of(hop)
            if address is None:
                break
            client = address
            if address not in self.proxies:
                break
        return client


def address_of(text: str) -> str | None:
    """The IP address, without a port and as everybody writes it; None when it is none."""
    return parsed_address(text) if len(text) <= LONGEST else None


@functools.lru_cache(maxsize=4096)
def parsed_address(text: str) -> str | None:
    found = HOP.fullmatch(text)
    try:
        address = ip_address(found[1] or found[2] or found[3]) if found else None
    except ValueError:
        address = None
    return str(as_ipv4(address)) if address else None


def as_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def network_of(text: str) -> IPv4Network | IPv6Network:
    network = ip_network(text.strip())
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        return IPv4Network((as_ipv4(network.network_address), network.prefixlen - MAPPED.prefixlen))
    return network
