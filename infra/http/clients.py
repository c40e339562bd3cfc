"""Who counts as one client, as far as limits go."""

import ipaddress


def network(client: str) -> str:
    """An IPv4 address, or the /64 that one IPv6 subscriber has at least."""
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), 64), strict=False))
    return str(address)


def site(network: str) -> str | None:
    """The /48 around a /64: what one IPv6 subscriber may have, as /64s by the ten thousand. None of an IPv4 address."""
    if not network.endswith("/64"):
        return None
    return str(ipaddress.ip_network(network).supernet(new_prefix=48))
