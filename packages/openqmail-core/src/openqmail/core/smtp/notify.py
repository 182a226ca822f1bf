"""RFC 3461's parameters as they are written: RET and ENVID of MAIL, NOTIFY and ORCPT of RCPT.

Strict, and bounded as the RFC bounds them: 100 octets of ENVID (section 4.4), 500 of ORCPT (section
4.2).  What they say once decoded is printable ASCII; an ORCPT of the type utf-8 is RFC 6533's, section
3.  They stay as written in the envelope and on the way; who reads one decodes it.  Pure.
"""

import re

MAX_ENVID = 100
MAX_ORCPT = 500

_XTEXT = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x7e]|\+[0-9A-F]{2})+")
_ESCAPE = re.compile(rb"\+([0-9A-F]{2})")
_TYPE = re.compile(rb"[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}[A-Za-z0-9])?")
_PRINTABLE = re.compile(rb"[\x20-\x7e]+")
_EVENTS = frozenset({b"SUCCESS", b"FAILURE", b"DELAY"})

# utf-8-addr-xtext and utf-8-addr-unitext; what is beyond ASCII as a character of its own, or by number.
_EMBEDDED = re.compile(rb"\\x\{([0-9A-F]{1,6})\}")
_UTF8 = re.compile(rb"(?:[\x21-\x2a\x2c-\x3c\x3e-\x5b\x5d-\x7e\x80-\xff]|\\x\{[0-9A-F]{1,6}\})+")


def is_notify(value: bytes) -> bool:
    """NEVER alone, or some of SUCCESS, FAILURE and DELAY, each once (section 4.1); upper case."""
    if value == b"NEVER":
        return True
    words = value.split(b",")
    return len(words) == len(set(words)) and _EVENTS.issuperset(words)


def is_envid(value: bytes) -> bool:
    """xtext (section 4.4)."""
    return len(value) <= MAX_ENVID and _is_xtext(value)


def is_orcpt(value: bytes, smtputf8: bool) -> bool:
    """A type, a semicolon, an address as xtext (section 4.2); raw UTF-8 only where SMTPUTF8 is in use."""
    kind, semicolon, address = value.partition(b";")
    if not semicolon or len(value) > MAX_ORCPT or not is_type(kind):
        return False
    if kind.lower() != b"utf-8":
        return _is_xtext(address)
    return (smtputf8 or address.isascii()) and bool(_UTF8.fullmatch(address)) and _are_characters(address)


def is_type(kind: bytes) -> bool:
    """What may say of which kind an address is (section 4.2), known or not: an atom as the registered ones
    are, of letters, digits and hyphens; of 64 octets at most."""
    return _TYPE.fullmatch(kind) is not None


def decode(value: bytes) -> bytes:
    """What xtext says.  Of what is none, what can be read."""
    return _ESCAPE.sub(lambda found: bytes((int(found.group(1), 16),)), value)


def decode_utf8(value: bytes) -> bytes:
    """What an address of the type utf-8 says, in UTF-8."""
    return _EMBEDDED.sub(lambda found: _character(found.group(1)) or b"?", value)


def encode_utf8(address: bytes) -> bytes:
    """utf-8-addr-xtext: an address in UTF-8, in ASCII."""
    text = address.decode("utf-8", "replace")
    return "".join([one if _is_plain(one) else f"\\x{{{ord(one):X}}}" for one in text]).encode()


def ascii_only(orcpt: bytes) -> bytes:
    """ORCPT as a peer without SMTPUTF8 may read it."""
    if orcpt.isascii():
        return orcpt
    kind, semicolon, address = orcpt.partition(b";")
    return kind + semicolon + encode_utf8(decode_utf8(address))


def _is_xtext(value: bytes) -> bool:
    return bool(_XTEXT.fullmatch(value)) and bool(_PRINTABLE.fullmatch(decode(value)))


def _are_characters(address: bytes) -> bool:
    try:
        address.decode()
    except UnicodeDecodeError:
        return False
    return all(_character(digits) is not None for digits in _EMBEDDED.findall(address))


def _character(digits: bytes) -> bytes | None:
    """One that may be written by its number: what ASCII could not say as it is, or has another sense for."""
    number = int(digits, 16)
    if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF or number < 0x20 or 0x7F <= number < 0xA0:
        return None
    return chr(number).encode()


def _is_plain(one: str) -> bool:
    return "!" <= one <= "~" and one not in "+=\\"
