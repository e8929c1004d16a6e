"""Which network addresses a flow may reach: public ones, and those that the settings allow by name."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

# is_global of the ipaddress module differs between Python releases; these are refused by all of them.
_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # carrier-grade NAT
        "127.0.0.0/8",
        "169.254.0.0/16",  # link-local: the metadata services of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NAT64 = IPv6Network("64:ff9b::/96")  # the last 32 bits are the IPv4 address that is reached
_REFUSED_V6 = tuple(
    IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address of any kind inside
        "3fff::/20",
    )
)
_NUMERIC_HOST = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)(?:\.(?:0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.IGNORECASE)
_LOCAL_NAMES = ("localhost", "localdomain", "local", "internal", "home.arpa")


def is_public(address: str) -> bool:
    """Whether the IP address is of the public Internet, and so is the IPv4 address within it, if there is one."""
    ip = ip_address(address.partition("%")[0])
    return _is_public_v4(ip) if isinstance(ip, IPv4Address) else _is_public_v6(ip)


def _is_public_v4(ip: IPv4Address) -> bool:
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _REFUSED_V4)


def _is_public_v6(ip: IPv6Address) -> bool:
    if ip.ipv4_mapped is not None:
        return _is_public_v4(ip.ipv4_mapped)
    if ip in _NAT64:
        return _is_public_v4(IPv4Address(ip.packed[-4:]))
    return ip in _GLOBAL_UNICAST and ip.is_global and not any(ip in network for network in _REFUSED_V6)


def literal_address(host: str) -> str | None:
    """The IP address that `host` is a literal of, in any form that resolvers take (decimal, octal, hexadecimal,
    shortened), or None where it is a name."""
    bare = host.strip("[]").partition("%")[0]
    try:
        return str(ip_address(bare))
    except ValueError:
        pass
    if _NUMERIC_HOST.fullmatch(bare):
        try:
            return socket.inet_ntoa(socket.inet_aton(bare.rstrip(".")))
        except OSError:
            return None
    return None


def is_private_literal(host: str) -> bool:
    """Whether `host`, as it stands, is an address that is not public or a name that by convention leads to one."""
    address = literal_address(host)
    if address is not None:
        return not is_public(address)
    name = host.rstrip(".").lower()
    return any(name == local or name.endswith(f".{local}") for local in _LOCAL_NAMES)


def is_link_local(host: str) -> bool:
    """Whether `host`, as it stands, is a link-local address: clouds hand out a machine's credentials there."""
    address = literal_address(host)
    if address is None:
        return False
    ip = ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_link_local


class HostAllowance:
    """The private hosts that the settings allow: `host` (any port) or `host:port`, IPv6 in brackets where a port
    follows. A URL's host is compared with them as it stands in the URL."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[str]) -> None:
        self._entries = frozenset(_split(entry) for entry in entries)

    def allows(self, host: str, port: int) -> bool:
        """Whether that host may be reached on that port whatever its address."""
        if not self._entries:
            return False
        name = _normal(host)
        return (name, None) in self._entries or (name, port) in self._entries


def _split(entry: str) -> tuple[str, int | None]:
    entry = entry.strip()
    host, colon, port = entry.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.endswith("]")):
        return _normal(host), int(port)
    return _normal(entry), None


def _normal(host: str) -> str:
    bare = host.strip("[]").rstrip(".").lower()
    try:
        return str(ip_address(bare))
    except ValueError:
        return bare
