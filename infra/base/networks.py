"""IP addresses and networks, each in one form: IPv6 shows an IPv4 address as one of its own."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

MAPPED = IPv6Network("::ffff:0:0/96")  # IPv4 addresses, as a socket of IPv6 shows them (RFC 4291, 2.5.5.2)


def as_ipv4(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def network_of(text: str) -> IPv4Network | IPv6Network:
    """Raises ValueError when it is none."""
    network = ip_network(text.strip())
    if isinstance(network, IPv6Network) and network.subnet_of(MAPPED):
        return IPv4Network((as_ipv4(network.network_address), network.prefixlen - MAPPED.prefixlen))
    return network
