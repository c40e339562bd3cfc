"""Whose an address is: a trusted proxy's, or a client's, which for limits is an IPv4 address or an IPv6 /64."""

import functools
import re
from ipaddress import ip_address, ip_network
from typing import Any

from starlette.requests import HTTPConnection

from infra.base.networks import as_ipv4, network_of

LONGEST = 64  # characters of an address and its port
REMEMBERED = 4096  # addresses
HOP = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]+)?|([0-9.]+)(?::[0-9]+)?|([0-9A-Fa-f:.]+)")
SUBSCRIBER = 64  # bits of an IPv6 address that one subscriber has at least
SITE = 48  # bits that one may have: /64s by the ten thousand


class TrustedProxies:
    """Addresses and networks, comma-separated; `*` is everybody. Raises ValueError for what is neither."""

    def __init__(self, proxies: str) -> None:
        self.everybody = proxies == "*"
        self.networks = () if self.everybody else tuple(network_of(text) for text in proxies.split(","))

    def __contains__(self, address: str | None) -> bool:
        """Whether an address that `address_of` has made is one of them."""
        return self.everybody or (address is not None and self.has(address))

    def has(self, address: str) -> bool:
        return any(ip_address(address) in network for network in self.networks)


def peer_address(peer: str) -> str | None:
    """The IP address of a socket's other end, without the zone of a link-local one; None for a UNIX socket's."""
    return address_of(peer.partition("%")[0])


def address_of(text: str) -> str | None:
    """The IP address, without a port and as everybody writes it; None when it is none."""
    return parsed_address(text) if len(text) <= LONGEST else None


@functools.lru_cache(REMEMBERED)
def parsed_address(text: str) -> str | None:
    found = HOP.fullmatch(text)
    try:
        address = ip_address(found[1] or found[2] or found[3]) if found else None
    except ValueError:
        address = None
    return str(as_ipv4(address)) if address else None


@functools.lru_cache(REMEMBERED)
def client_network(client: str) -> str:
    """An IPv4 address, or the /64 of an IPv6 address; "unknown" for what is neither."""
    address = peer_address(client)
    if address is None:
        return "unknown"
    return str(ip_network(f"{address}/{SUBSCRIBER}", strict=False)) if ":" in address else address


def client_network_of(request: HTTPConnection[Any]) -> str:
    """In whose limits the request counts."""
    return client_network(request.client.host if request.client else "")


def site(network: str) -> str | None:
    """The /48 around the /64 that `client_network` has made; None of an IPv4 address."""
    if not network.endswith(f"/{SUBSCRIBER}"):
        return None
    return str(ip_network(network).supernet(new_prefix=SITE))
