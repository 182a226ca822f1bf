"""A disk in memory that fails as disks do: it stops at a chosen call, runs out of room,
fails a sync, and after a power cut has of everything unsynced some, torn, or none."""

import errno
import os
import random
import threading


class Node:
    def __init__(self, path=b""):
        self.path = path
        self.data = bytearray()
        self.durable = b""


class OpenFile:
    def __init__(self, disk, node):
        self.disk, self.node = disk, node

    def append(self, pieces):
        data = b"".join(pieces)
        with self.disk.call("append"):
            room = self.disk.capacity - self.disk.used()
            self.node.data += data[: max(room, 0)]
            if len(data) > room:
                raise OSError(errno.ENOSPC, "No space left on device")
        return len(data)

    def read_at(self, offset, size):
        return bytes(self.node.data[offset : offset + size])

    def size(self):
        return len(self.node.data)

    def truncate(self, size):
        with self.disk.call("truncate"):
            del self.node.data[size:]

    def sync(self):
        with self.disk.call("sync"):
            if self.disk.failing_syncs and self.node.path.endswith(b".seg"):
                self.disk.failing_syncs -= 1
                raise OSError(self.disk.sync_error, os.strerror(self.disk.sync_error))
            self.node.durable = bytes(self.node.data)
            self.disk.syncs += 1

    def close(self):
        pass


class UnreliableDisk:
    def __init__(self, folders=(b"/queue",), total=1 << 30):
        self.now = {}  # folder -> name -> Node, None for a folder
        self.durable = {}
        for folder in folders:
            self.now[folder], self.durable[folder] = {}, {}
        self.capacity = self.total = total
        self.failing_syncs = self.syncs = self.calls = 0
        self.sync_error = errno.EIO
        self.stop_at = None
        self.lock = threading.RLock()

    def call(self, what):
        """From call `stop_at` on there is no disk any more."""
        self.calls += 1
        if self.stop_at is not None and self.calls >= self.stop_at:
            raise OSError(errno.EIO, f"power was cut before {what}")
        return self.lock

    def used(self):
        return sum(len(node.data) for names in self.now.values() for node in names.values() if node)

    def _node(self, path):
        node = self.now[os.path.dirname(path)].get(os.path.basename(path))
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "No such file", path)
        return node

    def create(self, path, mode=0o600):
        names = self.now[os.path.dirname(path)]
        with self.call("create"):
            if os.path.basename(path) in names:
                raise FileExistsError(errno.EEXIST, "File exists", path)
            names[os.path.basename(path)] = node = Node(path)
        return OpenFile(self, node)

    def open(self, path, *, write=False):
        return OpenFile(self, self._node(path))

    def rename(self, old, new):
        with self.call("rename"):
            node = self._node(old)
            del self.now[os.path.dirname(old)][os.path.basename(old)]
            self.now[os.path.dirname(new)][os.path.basename(new)] = node

    def unlink(self, path):
        with self.call("unlink"):
            self._node(path)
            del self.now[os.path.dirname(path)][os.path.basename(path)]

    def mkdir(self, path, mode=0o700):
        with self.call("mkdir"):
            if path in self.now:
                raise FileExistsError(errno.EEXIST, "File exists", path)
            self.now[path], self.durable[path] = {}, {}
            self.now[os.path.dirname(path)][os.path.basename(path)] = None

    def names(self, folder):
        if folder not in self.now:
            raise FileNotFoundError(errno.ENOENT, "No such folder", folder)
        return list(self.now[folder])

    def sync_folder(self, folder):
        with self.call("sync_folder"):
            self.durable[folder] = dict(self.now[folder])

    def filesystem(self, folder):
        return None

    def room(self, folder):
        return max(self.capacity - self.used(), 0), self.total

    # --- what is found afterwards -----------------------------------------------------------

    def after_kill(self):
        """Another process finds all that was written."""
        return self._copy(lambda folder, name: name in self.now[folder], lambda node: bytes(node.data))

    def after_power_cut(self, seed):
        """All that was synced; of the rest, by chance, some, torn, or none."""
        chance = random.Random(seed)

        def named(folder, name):
            now, then = self.now[folder].get(name, 0), self.durable[folder].get(name, 0)
            return now == then or chance.random() < 0.5 if now != 0 else chance.random() < 0.5

        def content(node):
            if not node.data.startswith(node.durable):
                return node.durable  # cut shorter and written again
            tail = bytearray(node.data[len(node.durable) :])
            kind = chance.randrange(4)
            if kind == 0:
                tail = tail[: chance.randint(0, len(tail))]
            elif kind == 1:
                tail = bytearray()
            elif kind == 2 and tail:
                start = chance.randrange(len(tail))
                tail[start : start + 512] = bytes(len(tail[start : start + 512]))
            return node.durable + bytes(tail)

        return self._copy(named, content)

    def _copy(self, named, content):
        copy = UnreliableDisk(self.now, self.total)
        for folder in self.now:
            for name in sorted({*self.now[folder], *self.durable[folder]}):
                if not named(folder, name):
                    continue
                node = self.now[folder].get(name) or self.durable[folder].get(name)
                kept = None
                if node is not None:
                    kept = Node(node.path)
                    kept.data[:] = kept.durable = content(node)
                copy.now[folder][name] = copy.durable[folder][name] = kept
        return copy
