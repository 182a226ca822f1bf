"""How the files are written that say from which address mail goes out, and what each means.

`bindings` is openqmail's own.  `domainbindings`, `domainips` and `outgoingip` are those of the
family (indimail-mta; s/qmail and aQmail; the patch that bears the name), read where there is no
`bindings`.  An address of theirs is of one family; the other is then not used, as the sender's
mail would otherwise go out from an address that nobody chose.  bindings.py decides.
"""

import ipaddress
from collections.abc import Callable

import msgspec

from openqmail.core.control import syntax
from openqmail.core.control.bindings import Source
from openqmail.core.control.definition import Definition
from openqmail.core.control.text import ControlText, shown

Keyed = tuple[tuple[bytes, ...], Source]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

CHOICE = {"-": None, "*": ""}


def bound(text: str) -> Keyed:
    """`key:v4|-|*:[v6]|-|*:helo`.  Raises ValueError."""
    key, colon, rest = syntax.split_key(text)
    fields = syntax.fields(rest)
    if not colon or len(fields) != 3:
        raise ValueError("is not KEY:V4:V6:HELO; write one like 'example.org:192.0.2.1:[2001:db8::1]:'")
    v4, v6, helo = fields
    source = Source(_own(v4, 4), _own(v6, 6), _helo(helo) if helo else b"")
    if source.v4 is None and source.v6 is None:
        raise ValueError("uses neither IPv4 nor IPv6, so no mail could leave; write * for one of them")
    return _keys(key), source


def domain_binding(text: str) -> Keyed:
    """`key:address`; an empty key: everybody, an empty address: the system's choice.  Raises ValueError."""
    key, colon, address = syntax.split_key(text)
    if not colon:
        raise ValueError("has no colon; write DOMAIN:ADDRESS, like example.org:192.0.2.1")
    return _keys(key or "*"), _one_family(address)


def domain_ip(text: str) -> Keyed:
    """`key:address%interface|helo`, the last two as wanted.  Raises ValueError.

    The interface has no effect: an address is bound, and has but one."""
    key, colon, rest = syntax.split_key(text)
    if not colon:
        raise ValueError("has no colon; write DOMAIN:ADDRESS|HELO, like example.org:192.0.2.1|mx.example.org")
    given, _, helo = rest.partition("|")
    source = _one_family(given.partition("%")[0])
    if helo:
        source = msgspec.structs.replace(source, helo=_helo(helo))
    return _keys(key or "*"), source


def outgoing_ip(text: str) -> Keyed:
    """An address, for everybody.  Raises ValueError."""
    return (b"*",), _one_family(text)


def lines(parse: Callable[[str], Keyed]) -> Callable[[ControlText], dict[bytes, Source]]:
    """A list of them; two meanings for one key are a problem."""

    def read(text: ControlText) -> dict[bytes, Source]:
        found: dict[bytes, Source] = {}
        for number, line in text.entries():
            entry = text.parse(number, line, parse)
            if entry is None:
                continue
            keys, source = entry
            source = msgspec.structs.replace(source, place=f"{text.file}, line {number}")
            for key in keys:
                other = found.setdefault(key, source)
                if msgspec.structs.replace(other, place=source.place) != source:
                    text.problem(
                        number,
                        f"{key.decode()} has another value in {other.place}; keep one of them",
                    )
        return found

    return read


def _where_given(
    read: Callable[[ControlText], dict[bytes, Source]],
) -> Callable[[ControlText], dict[bytes, Source] | None]:
    """None when there is no such file."""
    return lambda text: read(text) if text.given else None


def _keys(text: str) -> tuple[bytes, ...]:
    return (text.encode(),) if text in ("*", "<>") else syntax.address_or_suffix(text)


def _helo(text: str) -> bytes:
    """The name to give; a literal as RFC 5321 section 4.1.3 has it."""
    name = syntax.host(text)
    return name.replace(b"[", b"[IPv6:") if b":" in name else name


def _own(text: str, version: int) -> str | None:
    """The field of one family."""
    if text in CHOICE:
        return CHOICE[text]
    if text.startswith("[") and text.endswith("]") and version == 6:
        text = text[1:-1]
    elif version == 6:
        raise ValueError(f"'{shown(text)}' is not IPv6 in brackets, - or *; write one like [2001:db8::1]")
    address = _address(text)
    if address.version != version or address.is_unspecified:
        usual = "192.0.2.1" if version == 4 else "[2001:db8::1]"
        raise ValueError(f"'{shown(text)}' is not IPv{version}'s address of a host; write one like {usual}")
    return str(address)


def _one_family(text: str) -> Source:
    """What an address of the older files means."""
    if not text:
        return Source()
    address = _address(text.removeprefix("[").removesuffix("]"))
    if address.is_unspecified:
        return Source()
    return Source(str(address), None) if address.version == 4 else Source(None, str(address))


def _address(text: str) -> Address:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"'{shown(text)}' is not an address; write one like 192.0.2.1") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        raise ValueError(f"'{shown(text)}' is an address of IPv4 in IPv6; write it as {address.ipv4_mapped}")
    if address.is_multicast or (address.version == 6 and address.is_link_local) or "%" in text:
        raise ValueError(f"'{shown(text)}' is no address from which mail can go out; write a global one")
    return address


DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        name="bindings",
        kind="a list of KEY:V4:V6:HELO",
        default="",
        readers=("send", "remote"),
        explanation=(
            "From which addresses of this host mail goes out, and under which name, by its sender. The key "
            "is the sender's address, else its domain, else a .suffix of that, else * for all; <> is the "
            "sender of bounces. V4 is an address, V6 one in brackets; - means that this family is not used, "
            "* that the system chooses. HELO may be empty: then control/helohost holds. Without a line for "
            "its sender mail goes out as the system chooses; beside this file, be it without a line, "
            "domainbindings, domainips and outgoingip have no effect. When an address cannot be bound, "
            "the mail waits and the log has an alert; it never goes out from another one. 'openqmail "
            "check' tells of addresses that this host does not have."
        ),
        example="example.org:192.0.2.1:[2001:db8::1]:mx.example.org\n<>:192.0.2.2:-:\n*:*:*:",
        parse=_where_given(lines(bound)),
    ),
    Definition(
        name="domainbindings",
        kind="a list of DOMAIN:ADDRESS",
        default="",
        readers=("send", "remote"),
        explanation=(
            "indimail-mta's, read where there is no control/bindings: from which address mail goes out, by "
            "its sender's address, domain or .suffix; an empty key is everybody, an empty address the "
            "system's choice. With an address of one family the other is not used. The name in HELO is "
            "control/helohost."
        ),
        example="example.org:192.0.2.1\nuser@example.org:192.0.2.2\n:192.0.2.3",
        parse=lines(domain_binding),
    ),
    Definition(
        name="domainips",
        kind="a list of DOMAIN:ADDRESS[%INTERFACE][|HELO]",
        default="",
        readers=("send", "remote"),
        explanation=(
            "s/qmail's, read where there is no control/bindings: from which address, and with which name "
            "in HELO, mail goes out, by its sender's domain or .suffix; an empty key or * is everybody. With "
            "an address of one family the other is not used. The interface has no effect. Where "
            "control/domainbindings has the same key, that counts."
        ),
        example="example.org:192.0.2.1|mx.example.org\n*:2001:db8::1",
        parse=lines(domain_ip),
    ),
    Definition(
        name="outgoingip",
        kind="an address",
        default="",
        readers=("send", "remote"),
        explanation=(
            "Read where there is no control/bindings: the address from which mail goes out whose sender is "
            "in neither control/domainbindings nor control/domainips. 0.0.0.0 is the system's choice. The "
            "other family is not used, and the name in HELO is control/helohost."
        ),
        example="192.0.2.1",
        parse=lines(outgoing_ip),
    ),
)
