"""What a hook changes in a message: told to an `Edits`, made when the hook has answered.

The next hook sees the message as it is then.  Small messages are edited in memory; a large one is
read through its edits, whenever it is read, so its memory does not grow.  Whatever line ends a hook
gives, what is stored has LF.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from openqmail.core.hooks.body import View, head
from openqmail.core.message.fields import folded, name_of
from openqmail.core.values import Body, BytesBody, Envelope, Recipient
from openqmail.core.values.address import may_be_queued

Source = bytes | Callable[[], Iterable[bytes]]
"""A new body: its bytes, or what gives its pieces each time that it is called."""

Pieces = Callable[[], Iterator[bytes]]
"""A new body in stored form; no piece is empty."""


class Edits:
    """The wishes of one hook at one step.  `sender` and `recipients`: None, or what to put in place of the
    envelope's; nobody checks whether this client may send there.  Raises ValueError, TypeError for what no
    message can hold.  `any`: whether there is any wish."""

    __slots__ = ("_body", "_prepended", "_recipients", "_removed", "_sender", "any")

    def __init__(self) -> None:
        self.any = False
        self._prepended: tuple[bytes, ...] = ()
        self._removed: tuple[tuple[bytes, int | None], ...] = ()
        self._body: Source | None = None
        self._sender: bytes | None = None
        self._recipients: tuple[Recipient, ...] | None = None

    def prepend(self, field: bytes) -> None:
        """Put a whole field, `Name: value` with any continuation lines, on top of the header.  Of several
        the last one is the topmost."""
        lines = _lines(field)
        if list(folded(lines)) != [lines] or b"\0" in lines or b"\r" in lines:
            raise ValueError(f"{field[:60]!r} is not one header field")
        self._prepended = (lines, *self._prepended)
        self.any = True

    def remove(self, name: bytes, index: int | None = None) -> None:
        """Take the fields of this name out of the header as it came; with an `index` (0: the topmost, -1:
        the lowest) that one alone."""
        if not isinstance(name, bytes) or not isinstance(index, int | None):
            raise TypeError(f"remove({name!r}, {index!r}): a name is bytes, an index a number")
        self._removed = (*self._removed, (name.lower(), index))
        self.any = True

    def replace_body(self, body: Source) -> None:
        """Put this in place of all that stands behind the header's empty line."""
        if not isinstance(body, bytes) and not callable(body):
            raise TypeError(f"a new body is bytes, or what gives its pieces, not {type(body).__name__}")
        self._body = body
        self.any = True

    @property
    def sender(self) -> bytes | None:
        return self._sender

    @sender.setter
    def sender(self, address: bytes) -> None:
        self._sender = checked(address)
        self.any = True

    @property
    def recipients(self) -> tuple[Recipient, ...] | None:
        return self._recipients

    @recipients.setter
    def recipients(self, recipients: Iterable[Recipient]) -> None:
        wanted = tuple(recipients)
        for one in wanted:
            checked(one.address)
        self._recipients = wanted
        self.any = True

    # --- for the chain ------------------------------------------------------------------

    def envelope(self, envelope: Envelope) -> Envelope:
        """With the wishes about it."""
        if self._sender is None and self._recipients is None:
            return envelope
        return Envelope(
            envelope.sender if self._sender is None else self._sender,
            envelope.recipients if self._recipients is None else self._recipients,
            envelope.origin,
            envelope.smtputf8,
            envelope.ret,
            envelope.envid,
        )

    def called(self) -> Pieces | None:
        """A new body that is given as a function."""
        return partial(_stored, self._body) if callable(self._body) else None

    def body(self, body: Body, own: Callable[[Pieces], Pieces] = lambda pieces: pieces) -> Body:
        """With the wishes about it; the same when there are none.  `own`: how others read what a function
        gives, if that is to be large."""
        if not self._prepended and not self._removed and self._body is None:
            return body
        pieces: Pieces | None = None if self._body is None else partial(_stored, self._body)
        if body.data is None and (called := self.called()) is not None:
            pieces = own(called)
        edited = _Edited(body, b"".join(self._prepended), self._removed, pieces)
        return edited if body.data is None else BytesBody(b"".join(edited.chunks()))


class _Edited(View):
    """A body as it is read through edits."""

    def __init__(
        self, base: Body, top: bytes, removed: tuple[tuple[bytes, int | None], ...], body: Pieces | None
    ) -> None:
        super().__init__(base)
        self._top = top
        self._removed = removed
        self._body = body

    def chunks(self) -> Iterator[bytes]:
        """No piece is empty: to who reads them that would be the end."""
        header, behind = head(self.base)
        gap = b""
        if header and name_of(header) is None:
            # All of it is body, and none of it may go on where a field of ours ends.
            header, behind, gap = b"", header + behind, b"\n"
        fields = self._top + _without(header, self._removed)
        if self._body is not None:
            yield fields + b"\n"
            yield from self._body()
            return
        if fields or gap:
            yield fields + gap
        skip = len(header)
        for chunk in (header + behind,) if self.base.data is not None else self.base.chunks():
            if skip < len(chunk):
                yield chunk[skip:]
            skip = max(0, skip - len(chunk))


def checked(address: bytes) -> bytes:
    """The address, when it may stand in the queue's files.  Raises ValueError."""
    if not may_be_queued(address):
        raise ValueError("an address with a NUL or a line end, or longer than any is")
    return address


def _without(header: bytes, removed: tuple[tuple[bytes, int | None], ...]) -> bytes:
    fields = list(folded(header))
    rest = header[sum(map(len, fields)) :]
    names = [(name_of(field) or b"").lower() for field in fields]
    gone: set[int] = set()
    for name, index in removed:
        places = [at for at, one in enumerate(names) if one == name]
        if index is None:
            gone.update(places)
        elif -len(places) <= index < len(places):
            gone.add(places[index])
    return b"".join(field for at, field in enumerate(fields) if at not in gone) + rest


def _lines(text: bytes) -> bytes:
    """With LF line ends, the last one too."""
    text = text.replace(b"\r\n", b"\n")
    return text if text.endswith(b"\n") else text + b"\n"


def _stored(source: Source) -> Iterator[bytes]:
    """Its pieces with LF line ends; a CR may be parted from its LF."""
    held, last = b"", b"\n"
    for piece in (source,) if isinstance(source, bytes) else source():
        data = held + piece
        held = b"\r" if data.endswith(b"\r") else b""
        data = data[: len(data) - len(held)].replace(b"\r\n", b"\n")
        if data:
            last = data[-1:]
            yield data
    if held or last != b"\n":
        yield held + b"\n"
