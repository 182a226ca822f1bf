"""Which clients are counted together."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.limits import network_of


@given(st.ip_addresses(v=4))
def test_ipv4_counts_by_24_bits(address):
    assert network_of(str(address)).decode() == str(ipaddress.ip_network((address, 24), strict=False))
    assert network_of(f"::ffff:{address}") == network_of(str(address))


@given(st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None))
def test_ipv6_counts_by_64_bits(address):
    found = ipaddress.ip_network(network_of(str(address)).decode())
    assert found == ipaddress.ip_network((address, 64), strict=False)


@pytest.mark.parametrize("odd", ["", "localhost", "1.2.3", "fe80::1%eth0", "\udc80"])
def test_what_is_no_address_is_counted_by_itself(odd):
    expected = b"fe80::/64" if odd.startswith("fe80") else odd.encode("utf-8", "surrogateescape")
    assert network_of(odd) == expected
