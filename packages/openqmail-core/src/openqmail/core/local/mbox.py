"""Delivery to an mbox file, as qmail-local does it (mbox(5), qmail-local(8)).

Locked with flock(2), for which at most half a minute is waited, and opened anew when others have
replaced it meanwhile; `From ` line, `>From ` quoting and a blank line at the end; durable with its
name when it returns.  What cannot be written whole is cut off again, so nobody reads half a
message.  A crash in the midst can leave such a half: what comes next then begins a line of its
own.  Blocks, but only one delivery to an mbox waits while others have it locked.  An mbox has no
names: a delivery that is repeated is there twice.
"""

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from threading import Condition

from openqmail.core.local.home import word_of
from openqmail.core.values import Body, OpenqmailError, Outcome, Result
from openqmail.core.world import Clock, Disk, File

PATIENCE = 30.0
"""Seconds to wait for the lock."""

HELD = 64 * 1024
"""Bytes of the beginning of a line that are kept until it is known whether it is to be quoted."""

TRIES = 3
"""Files of a name that are locked one after the other, each replaced by others meanwhile."""

LOCKED = Result(Outcome.DEFERRAL, b"File has been locked for 30 seconds straight. (#4.3.0)\n")
REPLACED = Result(Outcome.DEFERRAL, b"File has been replaced again and again. (#4.3.0)\n")
UNREADABLE = Result(Outcome.DEFERRAL, b"Unable to read message. (#4.3.0)\n")

_NO_BLANKS = bytes.maketrans(b" \t\n\r\0", b"-----")
_DAYS = b"Mon Tue Wed Thu Fri Sat Sun".split()
_MONTHS = b"Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()
_FROM = re.compile(rb"\n(?=>*From )")
_UNDECIDED = re.compile(rb"\n>*(?:From|Fro|Fr|F)?")


class Mboxes:
    """Deliveries to mbox files of one disk; any thread may make them."""

    def __init__(self, disk: Disk, clock: Clock) -> None:
        self._disk = disk
        self._clock = clock
        self._turns = _Turns()

    def append(self, path: bytes, shown: bytes, sender: bytes, head: bytes, body: Body) -> Result | None:
        """The message, `head` before its body, at the end of the file, which is made when there is
        none; durable when it returns None, else why it is not there.  `shown`: the path as the
        user wrote it."""
        if not self._turns.take(path):
            return awaited(shown)
        try:
            return self._append(path, shown, sender, head, body)
        except OSError as error:
            return unable(b"write", shown, error)
        finally:
            self._turns.leave(path)

    def _append(self, path: bytes, shown: bytes, sender: bytes, head: bytes, body: Body) -> Result | None:
        """It is our turn.  Raises OSError, and the file is as it was."""
        for _ in range(TRIES):
            try:
                file = self._disk.open_mbox(path)
            except (OSError, ValueError) as error:
                return unable(b"open", shown, error)
            with closing(file):
                if not stat.S_ISREG(file.facts().mode):
                    return not_regular(shown)
                if not self._turns.lock(path, file):
                    return LOCKED
                place = self._disk.resolve(path)
                if self._is_at(place, file):
                    return self._write(file, place, sender, head, body)
        return REPLACED

    def _is_at(self, place: bytes, file: File) -> bool:
        """Nobody has replaced or removed it while we waited: what is written would be lost."""
        try:
            there, opened = self._disk.stat(place), file.facts()
        except FileNotFoundError:
            return False
        return (there.device, there.inode) == (opened.device, opened.inode)

    def _write(self, file: File, place: bytes, sender: bytes, head: bytes, body: Body) -> Result | None:
        """The file is locked, and `place` leads to it without a symbolic link.  Raises OSError, and the
        file is as it was."""
        before = file.size()
        torn = before and file.read_at(before - 1, 1) != b"\n"
        begin = (b"\n" if torn else b"") + from_line(sender, self._clock.now()) + head
        try:
            for piece in _entry(begin, body.chunks()):
                file.append((piece,))
            file.sync()
            self._sync_name(place, not before)
        except (KeyError, OpenqmailError):
            file.truncate(before)
            return UNREADABLE
        except BaseException:
            file.truncate(before)
            raise
        return None

    def _sync_name(self, place: bytes, new: bool) -> None:
        """Always: who made the file may have been killed before he did this."""
        try:
            self._disk.sync_folder(os.path.dirname(place))
        except PermissionError:  # a folder that nobody may list; who has mail there has had it before
            if new:
                raise


class _Turns:
    """Our own deliveries to an mbox take turns, and while one of them waits for somebody else's lock
    the others give up: else one locked mbox would keep every thread waiting."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._busy: set[bytes] = set()
        self._waiting: set[bytes] = set()

    def take(self, path: bytes) -> bool:
        """Wait for the turn; False when who has it waits for a lock."""
        with self._changed:
            self._changed.wait_for(lambda: path not in self._busy or path in self._waiting)
            if path in self._busy:
                return False
            self._busy.add(path)
            return True

    def lock(self, path: bytes, file: File) -> bool:
        """As `File.lock`, by who has the turn."""
        if file.lock(0):
            return True
        with self._changed:
            self._waiting.add(path)
            self._changed.notify_all()
        try:
            return file.lock(PATIENCE)
        finally:
            with self._changed:
                self._waiting.remove(path)

    def leave(self, path: bytes) -> None:
        with self._changed:
            self._busy.remove(path)
            self._changed.notify_all()


def awaited(shown: bytes) -> Result:
    """What a delivery says that does not wait, since another one does."""
    return _deferral(b"%s is locked, and another message waits for it already. (#4.3.0)\n" % shown)


def not_regular(shown: bytes) -> Result:
    """What a delivery to a FIFO or a device says."""
    return _deferral(b"Unable to open %s: not a regular file. (#4.2.1)\n" % shown)


def from_line(sender: bytes, now: float) -> bytes:
    """The line that begins a message: the envelope sender without blanks, and the time (UTC)."""
    at = time.gmtime(now)
    return b"From %s %s %s %02d %02d:%02d:%02d %d\n" % (
        sender.translate(_NO_BLANKS) or b"MAILER-DAEMON",
        _DAYS[at.tm_wday],
        _MONTHS[at.tm_mon - 1],
        at.tm_mday,
        at.tm_hour,
        at.tm_min,
        at.tm_sec,
        at.tm_year,
    )


def quoted(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same with one more `>` before each line that begins with `From `, behind whatever number of
    `>`.  Lines may be divided anywhere; of one that begins with more than `HELD` of them nobody
    needs to know."""
    held, skip = b"\n", 1  # the message is looked at as if a line had ended before it
    for chunk in chunks:
        data = held + chunk
        at = data.rfind(b"\n")
        undecided = at >= 0 and len(data) - at <= HELD and _UNDECIDED.fullmatch(data, at)
        held = data[at:] if undecided else b""
        piece = _FROM.sub(b"\n>", data[:at] if undecided else data)
        if piece:
            yield piece[skip:]
            skip = 0
    yield held[skip:]


def _entry(begin: bytes, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """One message as it stands in an mbox."""
    yield begin
    last = b"\n"
    for piece in quoted(chunks):
        if piece:
            last = piece[-1:]
            yield piece
    yield b"\n" if last == b"\n" else b"\n\n"


def unable(what: bytes, shown: bytes, error: OSError | ValueError) -> Result:
    """What a delivery says that cannot do `what` with its file, for that reason."""
    word = word_of(error) if isinstance(error, OSError) else b"no path can have that name"
    code = b"#4.2.1" if what == b"open" else b"#4.3.0"
    return _deferral(b"Unable to %s %s: %s. (%s)\n" % (what, shown, word, code))


def _deferral(text: bytes) -> Result:
    return Result(Outcome.DEFERRAL, text)
