"""How much TLS mail needs on its way out, by where it goes: `control/tlspolicy` and its neighbour.

A policy is a word here; what each demands of a host is said in tls/ and decided in remote/.  DANE and
MTA-STS will be more words of the same table.
"""

from openqmail.core.control import syntax
from openqmail.core.control.definition import Definition
from openqmail.core.control.text import mapping, shown, value

POLICIES = ("none", "may", "encrypt", "verify", "secure")
"""From the weakest to the strongest."""

REST = b"*"
"""The key of all that no other line speaks of."""


def policy(text: str) -> tuple[tuple[bytes, ...], str]:
    """`DOMAIN|.SUFFIX|* POLICY`.  Raises ValueError."""
    words = text.split()
    if len(words) != 2:
        raise ValueError("is not DOMAIN POLICY; write one like 'example.org verify' or '* may'")
    key, word = words
    if word not in POLICIES:
        raise ValueError(f"'{shown(word)}' is no policy; there are {', '.join(POLICIES)}")
    return ((REST,) if key == REST.decode() else syntax.suffix(key)), word


DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        name="tlspolicy",
        kind="a list of DOMAIN POLICY",
        default="",
        readers=("remote",),
        explanation=(
            "How much TLS mail for a domain needs, by its recipients' domain, else by the host that "
            "control/smtproutes names for it; a .suffix is all below it, * all that no other line speaks "
            "of. none: TLS is never begun. may, which holds without a line: TLS where the host offers it, "
            "else mail goes without, whoever it is. encrypt: never without TLS, whoever it is. verify: the "
            "host has to prove its name by a certificate of an authority that this system believes. secure: "
            "as verify, and the name has to be the domain's own or one below it, since an exchanger's name "
            "is only the DNS's word; for a host of control/smtproutes it is the same as verify. Mail that "
            "does not get what its policy asks for waits, and its delivery says which policy that was. For "
            "hosts with a file in control/tlshosts at least verify holds; and for those that are told a "
            "password (control/credentials), but where a line names the host itself."
        ),
        example="bank.example secure\n.example.org verify\nsmarthost.example.org encrypt\n* may",
        parse=mapping(policy),
    ),
    Definition(
        name="tlsclientciphers",
        kind="a list of ciphers for OpenSSL",
        default="",
        readers=("remote",),
        explanation=(
            "The ciphers for mail to other hosts with TLS 1.2, in OpenSSL's language; those of TLS 1.3 are "
            "all sound and always there. Without the file they are forward secret ones for hosts that are "
            "verified, and OpenSSL's usual ones for all others."
        ),
        example="ECDHE+AESGCM:ECDHE+CHACHA20",
        parse=lambda text: value(syntax.ciphers)(text) if text.content.strip() else "",
    ),
)
