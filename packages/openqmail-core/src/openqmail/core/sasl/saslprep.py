"""SASLprep (RFC 4013), by which SCRAM's two sides come to the same bytes for one password.

Its successor, PRECIS (RFC 8265), normalises otherwise, and clients of SCRAM do as RFC 5802 says.  The
tables are Unicode 3.2's, so that a later Python gives no other result; characters that are younger are
left as they are, as in a query of RFC 3454 section 7.
"""

import stringprep
import unicodedata

_PROHIBITED = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
)


def saslprep(text: str) -> str:
    """Raises ValueError for a character that must not be, or a mixture of directions."""
    mapped = "".join(
        " " if stringprep.in_table_c12(one) else one for one in text if not stringprep.in_table_b1(one)
    )
    normal = unicodedata.ucd_3_2_0.normalize("NFKC", mapped)
    if any(prohibited(one) for one in normal for prohibited in _PROHIBITED):
        raise ValueError("has a character that SASLprep forbids (RFC 4013 section 2.3)")
    if any(stringprep.in_table_d1(one) for one in normal) and (
        any(stringprep.in_table_d2(one) for one in normal)
        or not (stringprep.in_table_d1(normal[0]) and stringprep.in_table_d1(normal[-1]))
    ):
        raise ValueError("mixes directions of writing (RFC 3454 section 6)")
    return normal


def prepared(said: bytes) -> bytes:
    """A login or a password by SASLprep; as it is where that cannot be, so that whatever a user was
    given works.  Other implementations do the same or refuse it."""
    if said.isascii() and said.decode().isprintable():  # which SASLprep leaves as it is
        return said
    try:
        return saslprep(said.decode()).encode() or said
    except ValueError:
        return said
