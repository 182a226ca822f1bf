"""Results of mail in the layout, from the journal into the files: T becomes D, a failure's
paragraph stands in `bounce/N`, the mtime is the next attempt; of a message that has ended the
files go, `mess/N` last and only after the others' absence is durable.

The journal has each result first (rule 12), so it may be applied again: of one that was begun, parts
may be in the files already, whole or torn, or only seem to be there after a sync that failed; so all
of it is written anew.
"""

import contextlib
from collections.abc import Sequence

import msgspec

from openqmail.core.queue.journal.records import Kept
from openqmail.core.queue.layout.forms import (
    MAX_TEXT,
    Tried,
    decode_info,
    encode_attempts,
    missing_paragraphs,
    text_of,
    whole_info,
    whole_paragraphs,
)
from openqmail.core.queue.layout.paths import ITS_OWN, Files, Layout, exists
from openqmail.core.queue.layout.syncing import Syncer, Touched
from openqmail.core.world import Disk

MAX_INFO = 1 << 20
"""Bytes of `info/N` beyond which no more attempts are noted in it."""


class Applying(msgspec.Struct, frozen=True):
    """A result, and whether its message is held."""

    record: Kept
    held: bool = False


class Results:
    """Blocks; belongs to one thread."""

    def __init__(self, disk: Disk, layout: Layout, syncer: Syncer) -> None:
        self._disk = disk
        self._layout = layout
        self._syncer = syncer
        self._begun: dict[int, Kept] = {}
        """By identity: those of which nobody knows how much of them is in the files."""

    def apply(self, batch: Sequence[Applying], again: bool = False) -> list[OSError | None]:
        """What was wrong with each; all others are durable when it returns.  Of a message with which
        something is wrong nothing more is applied.  Raises OSError: then all of it is to be applied once
        more.  `again`: another process may have begun it."""
        touched = Touched()
        wrong: dict[int, OSError] = {}
        found: list[OSError | None] = []
        for one in batch:
            number = one.record.number
            if number not in wrong:
                begun = id(one.record) in self._begun
                self._begun[id(one.record)] = one.record
                try:
                    self._apply(one, again or begun, touched)
                except OSError as error:
                    if error.errno not in ITS_OWN:
                        raise
                    wrong[number] = error
            found.append(wrong.get(number))
        self._syncer.sync(touched.paths, touched.folders)
        for one, fault in zip(batch, found, strict=True):
            if fault is None:
                del self._begun[id(one.record)]
        return found

    def _apply(self, one: Applying, again: bool, touched: Touched) -> None:
        files = self._files(one)
        if one.record.ended:
            self._end(files, touched)
        else:
            self._change(files, one.record, again, touched)

    def _files(self, one: Applying) -> Files:
        number = one.record.number
        return self._layout.held_files(number) if one.held else self._layout.files(number)

    def _end(self, files: Files, touched: Touched) -> None:
        for path in (files.local, files.remote, files.bounce, files.info):
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(path)
            touched.name(path)

    def _change(self, files: Files, record: Kept, again: bool, touched: Touched) -> None:
        failures = [text for _, _, letter, text in record.changes if letter == "D"]
        if failures:
            self._append_failures(files.bounce, failures, again, touched)
        tried: Tried = {}
        for channel, path in (("l", files.local), ("r", files.remote)):
            places = []
            for its, place, letter, text in record.changes:
                if its == channel:
                    if letter == "Z":
                        tried[f"{channel}{place}"] = (1, text_of(text[:MAX_TEXT]))
                    else:
                        places.append(place)
            if places:
                self._mark_done(path, places, again, touched)
        if tried:
            self._note(files.info, tried, again, touched)
        for path, due in zip((files.local, files.remote), record.due, strict=True):
            if due > 0:
                with contextlib.suppress(FileNotFoundError):
                    self._disk.touch(path, due)
                    touched.file(path)

    def _mark_done(self, path: bytes, places: Sequence[int], again: bool, touched: Touched) -> None:
        """A byte each, in place.  A file that is gone had nothing left to be tried."""
        try:
            data, mtime = self._disk.contents(path)
        except FileNotFoundError:
            return
        wanted = set(places)
        at = place = 0
        while at < len(data):
            if place in wanted and (again or data[at : at + 1] == b"T"):
                self._disk.overwrite(path, at, b"D")
            at = data.find(b"\0", at) + 1
            if at == 0:
                break
            place += 1
        self._disk.touch(path, mtime)
        touched.file(path)

    def _append_failures(self, path: bytes, failures: Sequence[bytes], again: bool, touched: Touched) -> None:
        there = b""
        if again:
            with contextlib.suppress(FileNotFoundError):
                there = self._disk.contents(path)[0]
                whole = whole_paragraphs(there)
                if len(whole) < len(there):
                    self._disk.truncate(path, len(whole))
                there = whole
                self._disk.overwrite(path, 0, there)
        wanted = missing_paragraphs(there, failures)
        try:
            file = self._disk.open(path, write=True)
        except FileNotFoundError:
            file = self._disk.create(path)
            touched.name(path)
        try:
            if wanted:
                file.append((b"".join(wanted),))
        finally:
            file.close()
        if again:  # who made it may not have come to sync its name
            touched.name(path)
        touched.file(path)

    def _note(self, info: bytes, tried: Tried, again: bool, touched: Touched) -> None:
        """Append to `info` what an attempt said, and put its mtime (the birth) back.  Once begun, nobody
        knows whether it was done: rather not at all than twice, and what is there is written anew."""
        with contextlib.suppress(FileNotFoundError, ValueError):
            data = self._disk.contents(info)[0]
            sender, extra = decode_info(data)
            if extra is None:
                return  # qmail's own: a crash before its time is back would change its birth
            if again:
                self._write_notes_again(info, data, len(sender) + 2)
            elif len(data) <= MAX_INFO:
                file = self._disk.open(info, write=True)
                try:
                    file.append((encode_attempts(tried),))
                finally:
                    file.close()
            self._disk.touch(info, extra.birth)
            touched.file(info)

    def _write_notes_again(self, info: bytes, data: bytes, start: int) -> None:
        """All behind `start`, where what qmail reads ends; a torn record would hide those that follow."""
        whole = whole_info(data)
        if len(whole) < len(data):
            self._disk.truncate(info, len(whole))
        self._disk.overwrite(info, start, whole[start:])

    def tidy(self, numbers: Sequence[int]) -> None:
        """Remove the lists in which nothing is left to be tried, as qmail-send does.  A message with
        neither list has failures that a bounce will tell of: without any, it keeps what it has, so that
        lists that were lost are no sign of its end.  Raises OSError."""
        touched = Touched()
        for number in numbers:
            files = self._layout.files(number)
            lists = [path for path in (files.local, files.remote) if exists(self._disk, path)]
            done = [path for path in lists if self._is_done(path)]
            if len(done) == len(lists) and not exists(self._disk, files.bounce):
                continue
            for path in done:
                self._disk.unlink(path)
                touched.name(path)
        if touched.folders:
            self._syncer.sync(touched.paths, touched.folders)

    def _is_done(self, path: bytes) -> bool:
        data = self._disk.contents(path)[0]
        return not data.startswith(b"T") and b"\0T" not in data
