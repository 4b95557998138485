"""Which IP addresses are on the public internet, from IANA's special-purpose registries.

The tables in Python's `ipaddress` differ between versions: that of 3.11 calls fec0::/10 and 3fff::/20 global. This
table is the same in every version. Source: the IANA IPv4 and IPv6 Special-Purpose Address Registries of 2025-10-09. It
has all blocks that are not globally reachable, are deprecated, or contain no unicast addresses.
"""

from __future__ import annotations

import ipaddress

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_V4_DENIED = [
    ipaddress.IPv4Network(block)
    for block in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",  # private use
        "100.64.0.0/10",  # shared by carriers' NAT
        "127.0.0.0/8",  # loopback
        "169.254.0.0/16",  # link-local, with the metadata services of clouds
        "172.16.0.0/12",  # private use
        "192.0.0.0/24",  # protocol assignments
        "192.0.2.0/24",  # documentation
        "192.88.99.0/24",  # 6to4 relays, deprecated
        "192.168.0.0/16",  # private use
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",  # documentation
        "203.0.113.0/24",  # documentation
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, with the broadcast address
    )
]
_V4_ALLOWED = [ipaddress.IPv4Network(block) for block in ("192.0.0.9/32", "192.0.0.10/32")]  # anycast of PCP and TURN

_V6_UNICAST = ipaddress.IPv6Network("2000::/3")  # all that IANA has allocated; fec0::/10, 5f00::/16 and others are not
_V6_DENIED = [
    ipaddress.IPv6Network(block)
    for block in (
        "2001::/23",  # protocol assignments: Teredo, benchmarks, ORCHID, which are identifiers and not hosts
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4, which carries an IPv4 address
        "3fff::/20",  # documentation
    )
]
_V6_ALLOWED = [
    ipaddress.IPv6Network(block)
    # Anycast of PCP, TURN and DNS-SD, multicast tunnels (AMT), and AS112.
    for block in ("2001:1::1/128", "2001:1::2/128", "2001:1::3/128", "2001:3::/32", "2001:4:112::/48")
]
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = (0x00005EFE, 0x02005EFE)  # bits 64 to 95, before an IPv4 address (RFC 5214)


def is_public(address: IPAddress) -> bool:
    """Tell whether an IP address belongs to the public internet.

    An IPv6 address that embeds an IPv4 address could bypass the check. NAT64 (RFC 6052) and ISATAP are judged by the
    embedded IPv4 address; on an IPv6-only network, every IPv4 host is reached through NAT64. All others (mapped,
    compatible, 6to4, Teredo, an operator's own NAT64 under 64:ff9b:1::/48) are denied. NAT64 under another prefix of an
    operator cannot be recognised.
    """
    if isinstance(address, ipaddress.IPv4Address):
        return _is_in(address, _V4_ALLOWED) or not _is_in(address, _V4_DENIED)
    inside = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    if address in _NAT64:
        return is_public(inside)
    if (int(address) >> 32) & 0xFFFFFFFF in _ISATAP and not is_public(inside):
        return False
    if address not in _V6_UNICAST:
        return False
    return _is_in(address, _V6_ALLOWED) or not _is_in(address, _V6_DENIED)


def any_address(address: IPAddress) -> bool:
    """Allow every address: for --allow-private."""
    return True


def _is_in(address: IPAddress, blocks: list[ipaddress.IPv4Network] | list[ipaddress.IPv6Network]) -> bool:
    return any(address in block for block in blocks)
