"""The files of qmail's layout as bytes: pure functions, both ways.

`info` holds the sender, and behind it records that netqmail does not know and, as it stops at
the first NUL, does not see: an `X`, one JSON object, a NUL.  The first is the message's
`Extra`; each later one tells of attempts since.  What is torn off an appended record is
passed over: it was never promised.  See INTERNALS and qmail-send of netqmail.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec

MAX_TEXT = 256
"""Bytes of a report that are remembered of an attempt that will be made again."""

Tried = dict[str, tuple[int, str]]
"""Attempts and the last report by recipient: `l3` is the fourth in `local`, `r0` the first in `remote`."""


class Extra(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an envelope has beyond qmail's: in `info`, behind what qmail reads.

    `birth` is the mtime of `info` as well, where qmail has it; `left`: recipients that were not
    done with when it was written; `notify`: RFC 3461's NOTIFY and ORCPT by recipient, named as in
    `Tried`.  Bytes are written as Latin-1.
    """

    key: str
    birth: int
    uid: int = 0
    pid: int = 0
    smtputf8: bool = False
    ret: str = ""
    envid: str = ""
    notify: dict[str, tuple[str, str]] = {}
    tried: Tried = {}
    left: int = 0


class _Later(msgspec.Struct, frozen=True):
    tried: Tried


class Listed(msgspec.Struct, frozen=True, gc=False):
    """One recipient of a `local` or `remote` file."""

    done: bool
    address: bytes


class Todo(msgspec.Struct, frozen=True):
    """What qmail-queue put into `todo/N`."""

    uid: int
    pid: int
    sender: bytes
    recipients: tuple[bytes, ...]


_extra = msgspec.json.Decoder(Extra)
_later = msgspec.json.Decoder(_Later)
_encode = msgspec.json.Encoder().encode


def encode_info(sender: bytes, extra: Extra | None = None) -> bytes:
    """The content of `info/N`."""
    known = b"F%s\0" % sender
    return known if extra is None else known + b"X%s\0" % _encode(extra)


def encode_attempts(tried: Tried) -> bytes:
    """What is appended to `info/N` after an attempt that will be made again."""
    return b"X%s\0" % _encode(_Later(tried))


def decode_info(data: bytes) -> tuple[bytes, Extra | None]:
    """Sender and what we know beyond it.  Raises ValueError when it is no `info` file."""
    end = data.find(b"\0")
    if end < 0 or not data.startswith(b"F"):
        raise ValueError("it does not begin with F, a sender and a NUL")
    sender = data[1:end]
    extra: Extra | None = None
    tried: Tried | None = None
    for record, _ in _records(data, end + 1):
        if isinstance(record, Extra):
            extra = record
            continue
        tried = {**(extra.tried if extra else {})} if tried is None else tried
        for name, (attempts, text) in record.tried.items():
            before = tried.get(name)
            tried[name] = (attempts + (before[0] if before else 0), text)
    if extra is not None and tried is not None:
        extra = msgspec.structs.replace(extra, tried=tried)
    return sender, extra


def whole_info(data: bytes) -> bytes:
    """What of an `info` file is surely what was written: up to the first record that is torn."""
    start = data.find(b"\0") + 1
    return data[: max((end for _, end in _records(data, start)), default=start)]


def _records(data: bytes, at: int) -> Iterator[tuple[Extra | _Later, int]]:
    """The records from `at` on that are whole, and where each ends."""
    decode: Callable[[bytes], Extra | _Later] = _extra.decode
    while data.startswith(b"X", at):
        end = data.find(b"\0", at)
        if end < 0:
            return
        try:
            record = decode(data[at + 1 : end])
        except msgspec.MsgspecError:
            return
        at = end + 1
        yield record, at
        decode = _later.decode


def had_recipients(info: bytes) -> bool:
    """Whether it says that somebody was to be tried; only what we wrote does.  Raises ValueError."""
    sender, extra = decode_info(info)
    if extra is None:
        return len(info) > len(sender) + 2  # ours, and damaged
    return bool(extra.left or extra.tried)


def encode_recipients(recipients: Sequence[Listed]) -> bytes:
    """The content of `local/N` or `remote/N`."""
    return b"".join([(b"D%s\0" if one.done else b"T%s\0") % one.address for one in recipients])


def decode_recipients(data: bytes) -> list[Listed]:
    """The reverse.  Raises ValueError when it is no such file."""
    if not data:
        return []
    if not data.endswith(b"\0"):
        raise ValueError("it does not end with a NUL")
    found = []
    for record in data[:-1].split(b"\0"):
        letter = record[:1]
        if letter not in (b"T", b"D"):
            raise ValueError(f"a record begins with {letter!r} in place of T or D")
        found.append(Listed(letter == b"D", record[1:]))
    return found


def decode_todo(data: bytes) -> Todo:
    """What a qmail-queue wrote.  Raises ValueError."""
    if not data.endswith(b"\0"):
        raise ValueError("it does not end with a NUL")
    uid = pid = 0
    sender: bytes | None = None
    recipients: list[bytes] = []
    for record in data[:-1].split(b"\0"):
        letter, value = record[:1], record[1:]
        if letter in (b"u", b"p") and value.isdigit() and len(value) <= 19:
            uid, pid = (int(value), pid) if letter == b"u" else (uid, int(value))
        elif letter == b"F":
            sender = value
        elif letter == b"T":
            recipients.append(value)
        else:
            raise ValueError(f"a record begins with {letter!r} in place of u, p, F or T")
    if sender is None:
        raise ValueError("it names no sender")
    return Todo(uid, pid, sender, tuple(recipients))


_END = b"\n\n"


def whole_paragraphs(data: bytes) -> bytes:
    """What of a bounce file is surely what was written: whole paragraphs, before any hole."""
    hole = data.find(b"\0")
    if hole >= 0:
        data = data[:hole]
    if data.endswith(_END) or not data:
        return data
    end = data.rfind(_END)
    return data[: end + len(_END)] if end >= 0 else b""


def missing_paragraphs(there: bytes, wanted: Sequence[bytes]) -> list[bytes]:
    """Those of `wanted` that a bounce file does not have yet; each is counted, as one recipient
    may be named twice."""
    found = Counter([one.strip(b"\n") for one in there.split(_END)])
    missing = []
    for text in wanted:
        paragraph = text.strip(b"\n")
        if found[paragraph]:
            found[paragraph] -= 1
        else:
            missing.append(text)
    return missing


def text_of(data: bytes) -> str:
    """Bytes in JSON: each character is one byte."""
    return data.decode("latin-1")


def bytes_of(text: str) -> bytes:
    """The reverse; what is not one is `?`."""
    return text.encode("latin-1", "replace")
