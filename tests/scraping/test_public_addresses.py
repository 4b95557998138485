"""Which addresses are on the public internet."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scraping.public_addresses import is_public

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.1",
    "151.101.1.140",
    "192.0.0.9",
    "192.0.0.10",
    "192.31.196.1",
    "223.255.255.255",
    "2001:4:112::1",
    "2001:4860:4860::8888",
    "2600:1406::1",
    "2606:4700::1111",
    "3fff:1000::1",
    "64:ff9b::808:808",
    "2606:4700::5efe:808:808",
    "2606:4700::200:5efe:808:808",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.1.2.3",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.8",
    "192.0.0.170",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::8.8.8.8",
    "::7f00:1",
    "::ffff:8.8.8.8",
    "::ffff:127.0.0.1",
    "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::808:808",
    "100::1",
    "100:0:0:1::1",
    "200::1",
    "1fff:ffff::1",
    "2001::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "2001:2::1",
    "2001:10::1",
    "2001:20::1",
    "2001:30::1",
    "2001:1ff:ffff::1",
    "2001:db8::1",
    "2002:7f00:1::",
    "2002:808:808::1",
    "2606:4700::5efe:127.0.0.1",
    "2606:4700::200:5efe:169.254.169.254",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fe80::5efe:8.8.8.8",
    "fec0::1",
    "feff::1",
    "ff02::1",
]
# Blocks that a version of `ipaddress` and the registries do not agree on.
DISPUTED = [
    ipaddress.ip_network(block) for block in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_no_ipv6_form_leads_around_the_check(address: ipaddress.IPv4Address) -> None:
    bits = int(address)
    assert not is_public(ipaddress.IPv6Address(bits))
    assert not is_public(ipaddress.IPv6Address((0xFFFF << 32) | bits))
    assert not is_public(ipaddress.IPv6Address((0x2002 << 112) | (bits << 80)))
    assert is_public(ipaddress.IPv6Address((0x64FF9B << 96) | bits)) == is_public(address)
    for mark in (0x5EFE, 0x02005EFE):
        isatap = ipaddress.IPv6Address((0x2606_4700 << 96) | (mark << 32) | bits)
        assert is_public(isatap) == is_public(address)


@given(st.ip_addresses(v=4))
def test_ipv4_as_the_standard_library_has_it(address: ipaddress.IPv4Address) -> None:
    if not any(address in block for block in DISPUTED):
        assert is_public(address) == (address.is_global and not address.is_multicast and not address.is_reserved)


@given(st.one_of(st.ip_addresses(v=6), st.ip_addresses(network="2000::/3"), st.ip_addresses(network="2001::/20")))
def test_ipv6_as_the_standard_library_has_it(address: ipaddress.IPv6Address) -> None:
    if address in ipaddress.ip_network("64:ff9b::/96") or any(address in block for block in DISPUTED):
        return
    unicast = address in ipaddress.ip_network("2000::/3")
    isatap = (int(address) >> 32) & 0xFDFFFFFF == 0x5EFE
    if not isatap:
        assert is_public(address) == (address.is_global and unicast)
