from collections.abc import Callable

import pytest
from shop import send_receipt

from openqmail.core.testing import Answer, Mta, Receiver, VirtualMta


def test_a_customer_gets_a_receipt(mta: Mta) -> None:
    send_receipt("127.0.0.1", mta.port, "carol@customer.example", "3 €")
    [mail] = mta.wait_for("carol@customer.example")
    assert mail["Subject"] == "Your receipt"
    assert "3 €" in mail.text


@pytest.mark.parametrize("user", ["alice", "bob", "carol"])
def test_a_customer_of_ours_finds_it_in_a_mailbox(mta_factory: Callable[..., Mta], user: str) -> None:
    mta = mta_factory(users=[user], domain="shop.example")
    send_receipt("127.0.0.1", mta.port, f"{user}@shop.example", "3 €")
    [mail] = mta.wait_for(user)
    assert mail.recipient == f"{user}@shop.example"


def test_a_customer_whose_host_is_down_gets_it_days_later(
    virtual_mta_factory: Callable[..., VirtualMta],
) -> None:
    down = Receiver([Answer(421, at="greeting")] * 20)
    mta = virtual_mta_factory(receivers={"customer.example": down})
    mta.submit("shop@a.example", "carol@customer.example", "Subject: Your receipt\n\n")
    mta.advance(days=5)
    assert len(mta.sent("customer.example")) == 1
