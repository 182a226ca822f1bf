"""Address lists of a header (RFC 5322 section 3.4): who is named, and what a name lacks.

Takes groups, comments, quoted strings, routes and, as qmail-inject does, blanks where commas
are missing.  Nothing is rewritten here: a `Mailbox` says where in the text it ends, so that
what is missing can be put in and all else stays as its author wrote it.  What cannot be read
raises AddressError.  Pure, and light to import.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ATOM, _QUOTED, _LITERAL, _COMMENT = "atom", "quoted", "literal", "comment"
_WORDS = (_ATOM, _QUOTED, _LITERAL)
_BLANKS = b" \t\r\n"
_SPECIALS = b".,@<>:;"
_ENDS_ATOM = frozenset(_BLANKS + _SPECIALS + b'()[]"')
_CLOSING = {ord('"'): (_QUOTED, ord('"')), ord("["): (_LITERAL, ord("]")), ord("("): (_COMMENT, ord(")"))}
_BACKSLASH = ord("\\")


class AddressError(ValueError):
    """An address that cannot be one; the text says why, and goes behind its field's name."""


class Mailbox:
    """One address of a list.

    `local` is unquoted; `domain` is None where there was no `@`, and in brackets where it is a
    literal.  `end`: the offset behind its last octet; `route`: the span of a source route.
    """

    __slots__ = ("domain", "end", "local", "route")

    def __init__(
        self, local: bytes, domain: bytes | None, end: int = 0, route: tuple[int, int] | None = None
    ) -> None:
        self.local, self.domain, self.end, self.route = local, domain, end, route

    @property
    def null(self) -> bool:
        """It is `<>`, which names nobody."""
        return not self.local and self.domain is None

    @property
    def address(self) -> bytes:
        """As the envelope has it, when nothing is missing."""
        return self.local if self.domain is None else self.local + b"@" + self.domain


class Defaults:
    """What is put to incomplete addresses: the control files of qmail-inject(8)."""

    __slots__ = ("domain", "host", "plus")

    def __init__(self, host: bytes, domain: bytes, plus: bytes) -> None:
        self.host, self.domain, self.plus = host, domain, plus

    def missing(self, domain: bytes | None) -> tuple[int, bytes]:
        """What an address with this `domain` lacks: how many octets to take off its end, and
        what to put there."""
        if domain is None:
            cut, added = self.missing(self.host)
            return 0, b"@" + self.host[: len(self.host) - cut] + added
        if domain.startswith(b"["):
            return 0, b""
        if domain.endswith(b"+"):
            return 1, b"." + self.plus
        return (0, b"") if b"." in domain else (0, b"." + self.domain)

    def complete(self, mailbox: Mailbox) -> bytes:
        """The whole address; `<>` stays empty."""
        if mailbox.null:
            return b""
        cut, added = self.missing(mailbox.domain)
        address = mailbox.address
        return address[: len(address) - cut] + added


class _Token:
    __slots__ = ("end", "kind", "start", "value")

    def __init__(self, kind: str, value: bytes, start: int, end: int) -> None:
        self.kind, self.value, self.start, self.end = kind, value, start, end


def mailboxes(text: bytes) -> list[Mailbox]:
    """Every address of a list, in its order.  Raises AddressError."""
    found: list[Mailbox] = []
    words: list[_Token] = []
    in_group = False
    tokens = _tokens(text)
    for token in tokens:
        if token.kind == "<":
            words.clear()  # it was a name for people
            found.append(_in_brackets(tokens))
        elif token.kind == ",":
            found += _bare(words)
            words.clear()
        elif token.kind == ":":
            if in_group or not words:
                raise AddressError("a colon stands where no group begins")
            in_group = True
            words.clear()
        elif token.kind == ";":
            if not in_group:
                raise AddressError("a semicolon stands where no group ends")
            in_group = False
            found += _bare(words)
            words.clear()
        elif token.kind == ">":
            raise AddressError("a '>' has no '<' before it")
        else:
            words.append(token)
    if in_group:
        raise AddressError("a group is not ended by a semicolon")
    return found + _bare(words)


def plain(address: bytes) -> Mailbox:
    """An address in qmail's own form, as programs hand it over: no quoting, the last `@` divides."""
    local, at, domain = address.rpartition(b"@")
    if not at:
        local, domain = address, b""
    _check(address)
    if not local:
        raise AddressError("has nothing before its '@'" if at else "is empty")
    return Mailbox(local, _domain(domain) if at else None)


# --- addresses out of tokens --------------------------------------------------------------


def _in_brackets(tokens: Iterator[_Token]) -> Mailbox:
    """What stands between `<` and `>`; the first is already taken."""
    inside: list[_Token] = []
    for token in tokens:
        if token.kind == ">":
            break
        if token.kind not in (*_WORDS, _COMMENT, ".", "@", ",", ":"):
            raise AddressError(f"a '{token.kind}' stands between '<' and '>'")
        inside.append(token)
    else:
        raise AddressError("a '<' has no '>' behind it")
    route = None
    colons = [place for place, token in enumerate(inside) if token.kind == ":"]
    if colons:
        if inside[0].kind != "@":
            raise AddressError("a colon stands in an address")
        route = inside[0].start, inside[colons[-1]].end
        inside = inside[colons[-1] + 1 :]
    if any(token.kind == "," for token in inside):
        raise AddressError("a comma stands between '<' and '>'")
    parts = [token for token in inside if token.kind != _COMMENT]
    if not parts:
        return Mailbox(b"", None, inside[-1].end if inside else 0, route)
    whole = _split(parts)
    if len(whole) > 1:
        raise AddressError("two addresses stand between one '<' and '>'")
    return _mailbox(whole[0], route)


def _bare(words: list[_Token]) -> list[Mailbox]:
    """Addresses without brackets; several where commas are missing."""
    return [_mailbox(parts, None) for parts in _split([one for one in words if one.kind != _COMMENT])]


def _split(parts: list[_Token]) -> list[list[_Token]]:
    """A new address begins where a word follows a word."""
    whole: list[list[_Token]] = []
    before = ""
    for token in parts:
        if not whole or (token.kind in _WORDS and before in _WORDS):
            whole.append([])
        whole[-1].append(token)
        before = token.kind
    return whole


def _mailbox(parts: list[_Token], route: tuple[int, int] | None) -> Mailbox:
    ats = [place for place, token in enumerate(parts) if token.kind == "@"]
    if len(ats) > 1:
        raise AddressError("an address has two '@'")
    before, behind = (parts[: ats[0]], parts[ats[0] + 1 :]) if ats else (parts, [])
    local = b"".join([token.value for token in before])
    if not local and not any(token.kind == _QUOTED for token in before):
        raise AddressError("an address has nothing before its '@'")
    if any(token.kind == _LITERAL for token in before):
        raise AddressError("a '[' stands before an '@'")
    if any(token.kind == _QUOTED for token in behind):
        raise AddressError("the host of an address is in quotes")
    if any(token.kind == _LITERAL for token in behind) and len(behind) > 1:
        raise AddressError("the host of an address has something beside its brackets")
    if any(token.kind == _ATOM and token.end - token.start > len(token.value) for token in behind):
        raise AddressError("the host of an address has a backslash")
    domain = _domain(b"".join([token.value for token in behind])) if ats else None
    return Mailbox(local, domain, parts[-1].end, route)


def _domain(domain: bytes) -> bytes:
    """A domain, or a literal in brackets, that can be one as far as its form goes."""
    if not domain:
        raise AddressError("an address has no host behind its '@'")
    if domain.startswith(b"[") and domain.endswith(b"]"):
        return domain
    if not all(domain.removesuffix(b"+").split(b".")):
        raise AddressError("the host of an address has a dot too many")
    if any(octet in _ENDS_ATOM and octet not in b"." for octet in domain):
        raise AddressError("the host of an address has an octet that no name has")
    return domain


# --- tokens out of text -------------------------------------------------------------------


def _tokens(text: bytes) -> Iterator[_Token]:
    """The lexical tokens; blanks are passed over, comments are not."""
    place, size = 0, len(text)
    while place < size:
        octet = text[place]
        if octet in _BLANKS:
            place += 1
        elif octet in _SPECIALS:
            yield _Token(chr(octet), bytes((octet,)), place, place + 1)
            place += 1
        elif octet in _CLOSING:
            kind, closing = _CLOSING[octet]
            token = _enclosed(text, place, kind, closing)
            yield token
            place = token.end
        elif octet in b")]":
            raise AddressError(f"a '{chr(octet)}' has nothing that it closes")
        else:
            token = _atom(text, place)
            yield token
            place = token.end


def _atom(text: bytes, start: int) -> _Token:
    value = bytearray()
    place = start
    while place < len(text) and text[place] not in _ENDS_ATOM:
        place += text[place] == _BACKSLASH
        value += text[place : place + 1]
        place += 1
    _check(value)
    return _Token(_ATOM, bytes(value), start, min(place, len(text)))


def _enclosed(text: bytes, start: int, kind: str, closing: int) -> _Token:
    """A quoted string without its quotes, a literal with its brackets, or a comment."""
    value = bytearray()
    depth = 1
    place = start + 1
    while place < len(text):
        octet = text[place]
        if octet == closing:
            depth -= 1
            if not depth:
                break
        elif kind is _COMMENT and octet == text[start]:
            depth += 1
        elif octet == _BACKSLASH:
            place += 1
        elif octet in b"\r\n":  # a folded line (RFC 5322 section 2.2.3)
            place += 1
            continue
        value += text[place : place + 1]
        place += 1
    else:
        raise AddressError(f"a '{chr(text[start])}' is never closed")
    if kind is not _COMMENT:
        _check(value)
    return _Token(kind, b"[" + value + b"]" if kind is _LITERAL else bytes(value), start, place + 1)


def _check(value: bytes | bytearray) -> None:
    if any((octet < 32 and octet != 9) or octet == 127 for octet in value):
        raise AddressError("an address has a control character")
