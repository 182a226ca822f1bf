"""Out of the journal, into qmail's files (rule 8): a batch is written, and then synced at once.

Until its `moved` record is durable the journal is right and what is written here may be
withdrawn; so nothing here hurries, and anything here may be done again.  A message's number is
the inode of its file in `pool/`, which is filled and renamed to `mess/`.
"""

import contextlib
from collections.abc import Sequence

import msgspec

from openqmail.core.queue.layout.paths import ITS_OWN, Layout, exists
from openqmail.core.queue.layout.syncing import Syncer, Touched
from openqmail.core.queue.store import Due
from openqmail.core.world import Disk

MESS_MODE = 0o644
"""What qmail-queue gives to `mess/N`."""


class Outgoing(msgspec.Struct, frozen=True):
    """A message as its files are to be.  `body`: None when it is in `mess/` already; `local`,
    `remote`, `bounce`: empty for no such file.  `again`: an earlier attempt may have left files."""

    number: int
    birth: int
    due: Due
    info: bytes
    local: bytes
    remote: bytes
    bounce: bytes
    body: bytes | None
    again: bool = False


class Mover:
    """Blocks; belongs to one thread."""

    def __init__(self, disk: Disk, layout: Layout, syncer: Syncer) -> None:
        self._disk = disk
        self._layout = layout
        self._syncer = syncer
        self._again = False
        """The last batch may be there by halves, and names may have changed that are not durable."""

    def write(self, batch: Sequence[Outgoing]) -> list[OSError | None]:
        """What was wrong with the files of each; those of all others are durable when it returns.  Raises
        OSError: then none are."""
        touched = Touched()
        again, self._again = self._again, True
        wrong = [self._fault(message, again, touched) for message in batch]
        self._syncer.sync(touched.paths, touched.folders)
        self._again = False
        return wrong

    def withdraw(self, number: int, *, large: bool, touched: Touched) -> None:
        """Take back what was written of a message that has not moved; a small one's number is in
        the pool again.  Raises OSError."""
        self._take_back(number, touched)
        if not large and not self._is_strangers(number):
            self._to_pool(self._layout.mess(number), number, touched)

    def is_taken(self, message: Outgoing) -> bool:
        """Whether a foreign qmail-queue has this number just now: a queue that was copied has numbers
        that are nobody's inode, and one came up again.  Raises OSError."""
        if message.body is None or not exists(self._disk, self._layout.mess(message.number)):
            return False
        return not message.again or self._is_strangers(message.number)

    def _is_strangers(self, number: int) -> bool:
        """Whether `mess/N`, if there is one, is not of a move of ours."""
        layout = self._layout
        return any(
            exists(self._disk, path)
            for path in (layout.pool(number), layout.todo(number), layout.intd(number))
        )

    def withdraw_all(self, numbers: Sequence[int]) -> None:
        """The same of messages that have ended, but for `mess/N`; durable when it returns."""
        touched = Touched()
        for number in numbers:
            self._take_back(number, touched)
        if numbers:
            self._syncer.sync(touched.paths, touched.folders)

    def recycle(self, number: int) -> bool:
        """A message has ended, and durably so: whether its number is in the pool again.  Raises OSError."""
        layout = self._layout
        pool = layout.pool(number)
        if any(exists(self._disk, path) for path in (layout.todo(number), layout.intd(number))):
            return False  # `mess/N` is a stranger's
        if not exists(self._disk, pool) and not self._to_pool(self._layout.mess(number), number, None):
            return False
        if self._disk.stat(pool).inode == number:
            return True
        self._disk.unlink(pool)  # the queue was copied from another disk
        return False

    def discard(self, number: int) -> None:
        """The same where the pool has enough.  Raises OSError."""
        self._gone(self._layout.mess(number), None)

    def claim(self, number: int, touched: Touched | None = None) -> bool:
        """A large body belongs to a message: `pool/N` becomes `mess/N`.  False: it was there already.

        Raises OSError."""
        pool, mess = self._layout.pool(number), self._layout.mess(number)
        try:
            self._disk.rename(pool, mess)
        except FileNotFoundError:
            return False
        if touched is not None:
            touched.name(pool)
            touched.name(mess)
        return True

    # --- one message ------------------------------------------------------------------------

    def _fault(self, message: Outgoing, again: bool, touched: Touched) -> OSError | None:
        try:
            self._write(message, again, touched)
        except OSError as error:
            if error.errno not in ITS_OWN:
                raise
            return error
        return None

    def _write(self, message: Outgoing, again: bool, touched: Touched) -> None:
        files = self._layout.files(message.number)
        due_local, due_remote = message.due
        if message.body is not None:
            self._fill(files.mess, message, message.body, touched)
        else:
            self.claim(message.number)
            touched.name(self._layout.pool(message.number))  # whoever it was that renamed it
            touched.name(files.mess)
        for path, content, mtime in (
            (files.bounce, message.bounce, message.birth),
            (files.local, message.local, due_local or message.birth),
            (files.remote, message.remote, due_remote or message.birth),
            (files.info, message.info, message.birth),
        ):
            if not content:
                self._gone(path, touched)
                if again:
                    touched.name(path)
                continue
            try:
                self._disk.write_new(path, (content,))
            except FileExistsError:  # of an attempt that failed
                self._disk.unlink(path)
                self._disk.write_new(path, (content,))
            self._disk.touch(path, mtime)
            touched.new(path)

    def _fill(self, mess: bytes, message: Outgoing, body: bytes, touched: Touched) -> None:
        pool = self._layout.pool(message.number)
        if exists(self._disk, pool):
            self._rewrite(pool, body)
            self._disk.rename(pool, mess)
            touched.name(pool)
        elif exists(self._disk, mess):  # an attempt that failed has renamed it already
            self._rewrite(mess, body)
        else:
            self._disk.write_new(mess, (body,), MESS_MODE)
            self._disk.chmod(mess, MESS_MODE)  # whatever the umask is
        touched.new(mess)

    def _rewrite(self, path: bytes, body: bytes) -> None:
        file = self._disk.open(path, write=True)
        try:
            if file.size():
                file.truncate(0)
            file.append((body,))
        finally:
            file.close()

    def _take_back(self, number: int, touched: Touched) -> None:
        files = self._layout.files(number)
        for path in (files.info, files.local, files.remote, files.bounce):
            with contextlib.suppress(IsADirectoryError):  # which is none of ours
                self._gone(path, None)
            touched.name(path)  # also if it went before: perhaps that is not durable

    def _to_pool(self, mess: bytes, number: int, touched: Touched | None) -> bool:
        pool = self._layout.pool(number)
        with contextlib.suppress(FileNotFoundError):
            if self._disk.stat(mess).links != 1:  # somebody's backup: it keeps what it has
                self._gone(mess, touched)
                return False
            self._disk.truncate(mess, 0)
            self._disk.rename(mess, pool)
            if touched is not None:
                touched.name(mess)
                touched.name(pool)
            return True
        return False

    def _gone(self, path: bytes, touched: Touched | None) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(path)
            if touched is not None:
                touched.name(path)
