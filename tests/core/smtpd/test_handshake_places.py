"""Places for TLS handshakes: nobody but its own network is kept from one by who only begins them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.smtpd.handshake import Handshakes


def held(places: Handshakes, address: str, relay: bool = False) -> int:
    """As many as are given to one who never ends any."""
    count = 0
    while places.free(address, relay):
        places.begin(address, relay)
        count += 1
    return count


@pytest.mark.parametrize("address", ["192.0.2.{}", "2001:db8::{}", "::ffff:192.0.2.{}"])
def test_one_network_has_a_fifth_of_all_places(address: str) -> None:
    places = Handshakes(100)
    assert sum(held(places, address.format(host)) for host in range(1, 9)) == 20
    assert places.free("198.51.100.1", False)


def test_many_networks_leave_a_place_for_one_more() -> None:
    places = Handshakes(100)
    assert [held(places, f"192.0.{net}.1") for net in range(5)] == [20, 16, 13, 11, 8]
    assert all(places.free(f"198.51.{net}.1", False) for net in range(9))


def test_who_may_relay_has_places_of_his_own() -> None:
    places = Handshakes(10)
    assert sum(held(places, f"192.0.{net}.1") for net in range(20)) == 10
    assert held(places, "192.0.2.1", True) == 10
    assert places.under_way == 20 and not places.free("192.0.2.1", True)


@given(st.lists(st.tuples(st.integers(0, 7), st.booleans(), st.booleans()), max_size=200), st.integers(1, 30))
def test_every_place_comes_back_and_there_are_never_too_many(steps, most) -> None:
    places, shares = Handshakes(most), []
    for network, relay, end in steps:
        if end and shares:
            places.end(shares.pop(network % len(shares)))
        elif places.free(f"192.0.{network}.1", relay):
            shares.append(places.begin(f"192.0.{network}.1", relay))
        strangers = sum(share is not None for share in shares)
        assert places.under_way == len(shares)
        assert strangers <= most and len(shares) - strangers <= most
        for other in range(8):  # none that has nothing is turned away while a place is left
            mine = f"192.0.{other}.0/24".encode()
            assert mine in shares or places.free(f"192.0.{other}.1", False) is (strangers < most)
    for share in shares:
        places.end(share)
    assert places.under_way == 0
