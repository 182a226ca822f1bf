"""What an envelope carries survives the way to the disk and back."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from openqmail.core.values import ControlError, Envelope, Origin, Recipient

recipients = st.builds(Recipient, st.binary(max_size=50), st.binary(max_size=20), st.binary(max_size=20))
envelopes = st.builds(
    Envelope,
    st.binary(max_size=50),
    st.lists(recipients, max_size=4).map(tuple),
    st.builds(Origin, st.integers(0, 2**32), st.integers(0, 2**22)),
    st.booleans(),
    st.sampled_from([b"", b"FULL", b"HDRS"]),
    st.binary(max_size=20),
)


@given(envelopes)
def test_dsn_and_smtputf8_data_come_back_from_the_disk(envelope: Envelope) -> None:
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(envelope), type=Envelope) == envelope


def test_a_control_error_names_file_and_line() -> None:
    assert str(ControlError("control/rules", 3, "no colon; write 127.:allow")) == (
        "control/rules, line 3: no colon; write 127.:allow"
    )
    assert str(ControlError("control/me", 0, "is missing")) == "control/me: is missing"
