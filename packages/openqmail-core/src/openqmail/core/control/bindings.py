"""From which address of this host mail goes out, by its sender: the decision, without IO.

The key is the sender's whole address, else its domain, else a `.suffix` of that from the longest,
else `*`; `<>` is the null sender.  Every message goes by its own sender alone: where it goes to
has no say.  How the files are written is in outgoing.py.
"""

from collections.abc import Iterator, Mapping

import msgspec

from openqmail.core.values.address import canonical_address, suffixes

NULL_SENDERS = (b"", b"#@[]")
"""What a bounce has, and the bounce of a bounce."""


class Source(msgspec.Struct, frozen=True, gc=False):
    """From where, and under which name, this host speaks to others.

    `v4`, `v6`: an address of this host; "" for the system's choice; None: that family is not used.
    `helo`: empty for `control/helohost`.  `place`: which line says so, as an alert names it."""

    v4: str | None = ""
    v6: str | None = ""
    helo: bytes = b""
    place: str = ""

    def local(self, address: str) -> str | None:
        """What to bind before connecting to this address: `v4` or `v6`."""
        return self.v6 if ":" in address else self.v4

    @property
    def any_family(self) -> bool:
        return self.v4 is not None and self.v6 is not None


ANY = Source()
"""All is the system's choice: what holds for a sender whom no line speaks of."""


class Bindings(msgspec.Struct, frozen=True):
    """Sources by key, in the one spelling of values/address.py."""

    lines: Mapping[bytes, Source] = {}

    def source_of(self, sender: bytes) -> Source:
        """The source of mail from this sender; `ANY` when no line speaks of it."""
        lines = self.lines
        for key in _keys(sender):
            if key in lines:
                return lines[key]
        return ANY

    def addresses(self) -> dict[str, str]:
        """Every address that has to be this host's, and the first place that names it."""
        found: dict[str, str] = {}
        for source in self.lines.values():
            for address in (source.v4, source.v6):
                if address:
                    found.setdefault(address, source.place)
        return found


def _keys(sender: bytes) -> Iterator[bytes]:
    """What may speak of a sender, the most particular first."""
    if sender in NULL_SENDERS:
        yield b"<>"
    else:
        sender = canonical_address(sender)
        yield sender
        _, at, domain = sender.rpartition(b"@")
        if at:
            yield domain
            yield from suffixes(domain)
    yield b"*"
