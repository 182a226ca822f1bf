"""A history drawn from a seed: mail comes, is delivered, deferred, bounced, forwarded, held;
the disk fills up or fails, the clock jumps, the power is cut; and at the end all is accounted for.

`tell(seed)` plays it and raises AssertionError with the story when a promise was broken:
every acknowledged message is delivered, queued or bounced; none twice without a crash in
between; no recipient comes back whose result was on the disk; a second recovery changes nothing.
"""

import asyncio
import contextlib
import re
from collections import Counter
from random import Random
from unittest.mock import patch
from zlib import crc32

from flips import Flip, segments
from ledger import Sent, name_of
from world import FEW, QUEUE, SETTINGS, USERS, Loop, Machine, Process, copied

from openqmail.core.local.durability import stem_of
from openqmail.core.queue import LocalStore
from openqmail.core.queue.looking import read
from openqmail.core.send import Routes
from openqmail.core.values import Envelope, HomeError, OpenqmailError, Origin, Recipient
from openqmail.core.world.simulated import PowerCut, SimulatedWorkers

TELLER = b"teller@here.test"
"""Forwards, and then others have to tell."""
ADDRESSES = (
    b"alice@here.test",
    b"bob@here.test",
    b"teller@here.test",
    b"nobody@here.test",
    b"x@virtual.test",
    b"ok-1@there.test",
    b"ok-2@there.test",
    b"ok-3@else.test",
    b"defer-1@there.test",
    b"defer-2@else.test",
    b"fail-1@there.test",
)
VERBS = ("hold", "release", "retry", "flush", "delete", "bounce", "release")
IN_A_RUSH = ("delete", "delete", "hold", "bounce", "retry")
DAY = 86_400
LARGE = 1000
"""Bytes from which on what is made of a message is large, so that there is much of it."""
STARTS = 20
"""How often a start is made until one is not stopped by a sync that fails."""
STORES_LARGE = "openqmail.core.queue.local_store.LARGE"
FILES = 200
"""Bytes that a message's files take beside its text, on a disk that has no blocks."""


def tell(seed, failing=0.0):
    """Play the history of this seed.  `failing`: the share of its steps before which a sync of qmail's files
    fails.  Who interrupts it finds the story so far in the notes of his error."""
    story = Story(seed, failing)
    try:
        with (
            patch("openqmail.core.send.derived.LARGE", LARGE),
            patch(STORES_LARGE, LARGE),
            patch("openqmail.core.queue.room.FILES", FILES),
        ):
            story.play()
    except Exception as error:
        raise AssertionError(f"seed {seed}: {error!r}; {again(seed, failing)}; {story.retold()}") from error
    except BaseException as error:
        error.add_note(f"while seed {seed} was played; {again(seed, failing)}; {story.retold()}")
        raise
    return story


def again(seed, failing):
    """What plays the same history again."""
    return f"again: ./nox -s simulate -- --seed {seed}" + (f" --failing {failing}" if failing else "")


class Story:
    def __init__(self, seed, failing=0.0):
        self.machine = Machine(seed)
        self.failing = failing
        self.chance = self.machine.chance
        self.ledger = self.machine.ledger
        self.count = 0
        self.litter = False  # a qmail-queue of somebody else's broke off, or a stop or start of ours half-way
        self.spoiled = False  # a sync failed
        self.foreigners = set()
        self.scarce = False  # the disk was full, or nearly
        self.dice = Random(f"beside {seed}")  # of what has no part in the history itself
        self.flips = Counter()  # whether the start was refused -> how often

    def retold(self):
        return "the story:\n" + "\n".join(self.ledger.events)

    def play(self):
        for _ in range(self.chance.randint(1, 4)):
            self.life(self.chance.choice(("cut", "kill", "stop", "cut")))
        self.last_life()
        self.account()

    # --- lives ----------------------------------------------------------------------------

    def life(self, end):
        machine, chance = self.machine, self.chance
        self.ledger.note(f"a life that ends by: {end}")
        if machine.is_small:
            free, total = machine.disk.room(QUEUE)
            self.scarce = True
            machine.disk.capacity = (total - free) * 10 // 9 + chance.randint(20_000, 300_000)
            self.ledger.note(f"the disk has room for {machine.disk.room(QUEUE)[0]} more bytes")
        if end != "stop":
            machine.disk.faults.stop_at = machine.disk.faults.calls + chance.randint(1, 2500)
        loop = Loop(machine.clock)
        machine.disk.faults.on_power_cut = loop.cut
        try:
            crashed = loop.run_until_complete(self.live(loop))
        except PowerCut:
            crashed = True
        finally:
            clean_up(loop)
        machine.disk.faults.stop_at = None
        if crashed:
            self.ledger.crashed()
            self.ledger.note(f"crashed in call {machine.disk.faults.calls}")
            power = end == "cut"
            machine.disk = machine.disk.after_power_cut(chance) if power else machine.disk.after_kill()
            machine.disk.capacity = 1 << 40
            if chance.random() < 0.15:
                machine.disk = copied(machine.disk, chance, machine.clock)
                self.ledger.note("its files are copied to another disk")
            if chance.random() < 0.3:
                self.recover_twice()
            if self.dice.random() < 0.3:
                self.flip()

    async def live(self, loop):
        """Whether the process gave up, because nothing could be made durable any more."""
        process = self.started(loop)
        lost = asyncio.ensure_future(process.lost.wait())
        life = asyncio.ensure_future(self.steps(process))
        await asyncio.wait((lost, life), return_when=asyncio.FIRST_COMPLETED)
        if process.lost.is_set():
            assert self.spoiled, process.fatal
            self.ledger.note(f"the process gives up: {process.fatal}")
            return True
        await life
        return False

    def started(self, loop):
        """A service that runs; while a sync fails it does not start, and says so."""
        for _ in range(STARTS):
            process = Process(self.machine, loop)
            try:
                process.start()
            except HomeError as error:
                assert self.spoiled, error
                self.litter = True
                self.ledger.note(f"it does not start: {error}")
            else:
                return process
        raise AssertionError("it does not start at all")

    async def steps(self, process):
        self.under_way = []
        for _ in range(self.chance.randint(3, 40)):
            if self.failing and self.chance.random() < self.failing:
                self.fail_in_the_layout()
            await self.step(process)
        self.machine.disk.capacity = 1 << 40
        await asyncio.gather(*self.under_way)
        left = await process.stop()
        self.ledger.note(f"stopped, {left} left in the journal")
        assert self.spoiled or not left, f"{left} messages could not be moved: {process.reports}"
        if left:  # of what has ended the text may be all that is there: nobody knows then whose it is
            self.litter = True
        else:
            self.can_be_given_back()

    def can_be_given_back(self):
        """All is in qmail's own files, and durable: the journal has nothing more to say."""
        here, there = self.machine.disk.after_kill(), self.machine.disk.after_power_cut(Random(1))
        for name in there.names(QUEUE + b"/journal"):
            there.unlink(QUEUE + b"/journal/" + name)
        there.rename(QUEUE + b"/pool", b"/home/pool")
        qmails, all_of_it = (
            {one.id.number: known(one) for one in read(QUEUE, disk)} for disk in (there, here)
        )
        assert qmails == all_of_it, "something is in the journal only"

    def last_life(self):
        machine = self.machine
        machine.kind = True
        loop = Loop(machine.clock)
        try:
            loop.run_until_complete(self.drain(loop))
        finally:
            clean_up(loop)

    async def drain(self, loop):
        process = self.started(loop)
        await self.release_all(process)
        for _ in range(5000):
            await asyncio.sleep(100)
            if not list(process.store.numbers()):
                break
        left = [(number, process.store.load(number)) for number in process.store.numbers()]
        assert not left, f"these never end: {left}; {process.log.lines()[-20:]} {process.reports}"
        await process.sender.drain()
        await asyncio.sleep(10)
        assert await process.stop() == 0

    async def release_all(self, process):
        """What a failed sync keeps is asked for once more, when it has been put right."""
        store = process.store
        for _ in range(STARTS):
            held = [number for number in store.numbers() if store.load(number).held is not None]
            if not held:
                return
            done = await process.admin.release(held)
            if done.done == tuple(held):
                return
            assert self.spoiled, f"these cannot be released: {done.missed} {done.later}"
            await asyncio.sleep(60)
        raise AssertionError(f"these cannot be released at all: {held}")

    def recover_twice(self):
        disk = self.machine.disk.after_kill()
        first, disk = self.recovered(disk)
        second, _ = self.recovered(disk)
        assert first == second, f"a second recovery changed something: {first} {second}"

    def flip(self):
        if not segments(self.machine.disk):
            return
        flip = Flip(self.machine.disk, self.dice, self.recovered)
        self.ledger.note(f"aside from the story, {flip}")
        self.flips[flip.check()] += 1

    def recovered(self, disk, salvage=False, whole=True):
        """Everything in the queue, and the disk as opening and closing leaves it.  Not `whole`: of messages
        that cannot be read, what is said of them.  Whom a sync fails, he starts once more."""
        for _ in range(STARTS):
            try:
                return self.looked(disk, salvage, whole)
            except HomeError as error:
                assert self.spoiled, error
        raise AssertionError("it does not start at all")

    def looked(self, disk, salvage, whole):
        loop = Loop(self.machine.clock)
        chance = Random(1)
        reports = []

        async def look():
            store = LocalStore(
                disk,
                self.machine.clock,
                QUEUE,
                reports.append,
                route=Routes(SETTINGS).place,
                report=reports.append,
                limits=self.machine.limits,
                salvage=salvage,
                loop=loop,
                workers=lambda count, name: SimulatedWorkers(loop, chance, count, loop.cut),
                entropy=chance.randbytes,
            )
            due = dict(store.open())
            seen = {}
            for number in store.numbers():
                try:
                    stored = store.load(number)
                    body = b"".join(store.body(number).chunks())
                except OpenqmailError as error:
                    if whole:
                        raise
                    seen[number] = (str(error),)
                    continue
                where = bool(stored.channels), stored.held, stored.bounce
                seen[number] = (
                    stored.id.key,
                    due.get(number),
                    stored.progress,
                    where,
                    f"{name_of(body)} {crc32(body):08x}",
                )
            await store.close()
            return seen

        try:
            return loop.run_until_complete(look()), disk.after_kill()
        finally:
            clean_up(loop)

    # --- steps ----------------------------------------------------------------------------

    async def step(self, process):
        kind = self.chance.random()
        if kind < 0.35:
            self.submit(process, large=False)
        elif kind < 0.43:
            self.submit(process, large=True)
        elif kind < 0.5:
            self.foreign(process)
        elif kind < 0.62:
            await self.administer(process)
        elif kind < 0.65:
            self.trouble()
        elif kind < 0.72 and self.machine.limits is FEW:
            await self.rush(process)
        elif kind < 0.85:
            await asyncio.sleep(self.chance.random() * 3)
        else:
            await asyncio.sleep(self.chance.randint(1, 3000))

    def begin(self, work):
        task = asyncio.ensure_future(work)
        self.under_way.append(task)
        return task

    def compose(self):
        chance = self.chance
        self.count += 1
        name = f"m{self.count}"
        sender = chance.choice((b"back@here.test", b"back@here.test", b"", b"fail-sender@there.test"))
        recipients = tuple(chance.sample(ADDRESSES, chance.choice((1, 1, 1, 2, 3, 6))))
        text = b"X-Name: %s\n\n%s\n" % (name.encode(), chance.choice((b"short", b"long\n" * 300)))
        sent = Sent(name, sender, recipients, text, self.ledger.crashes, self.count % 3 == 0)
        self.ledger.asked[name] = sent
        return sent

    def submit(self, process, large):
        sent = self.compose()
        self.ledger.note(f"{sent.name} comes in for {sent.recipients}{' (large)' if large else ''}")
        self.begin(self.submitted(process, sent, large))

    async def submitted(self, process, sent, large):
        asked = {one: b"SUCCESS,FAILURE" for one in sent.recipients if sent.wishes and one != TELLER}
        recipients = tuple(Recipient(one, asked.get(one, b"")) for one in sent.recipients)
        envelope = Envelope(sent.sender, recipients, Origin(7, 8))
        body = b"Received: by simulation\n" + sent.text
        try:
            if large:
                writer = process.sender.large()
                for at in range(0, len(body), 500):
                    await writer.write(body[at : at + 500])
                body = writer
            identity = await process.sender.submit(envelope, body)
        except OpenqmailError as error:
            self.ledger.note(f"{sent.name} is refused: {error}")
            return
        self.ledger.accepted[sent.name] = sent
        self.ledger.note(f"{sent.name} is accepted as {identity.number}")

    async def rush(self, process):
        """Many messages in a short time, and an administrator in the midst of them."""
        for _ in range(self.chance.randint(10, 60)):
            self.submit(process, large=False)
            await asyncio.sleep(self.chance.random() * 0.02)
            if self.chance.random() < 0.2:
                self.begin(self.administer(process, IN_A_RUSH))

    def foreign(self, process):
        """A qmail-queue of somebody else's, step by step."""
        sent = self.compose()
        self.foreigners.add(sent.name)  # qmail-queue has no room for wishes
        self.ledger.note(f"{sent.name} is put into todo for {sent.recipients}")
        self.begin(self.queued(process, sent))

    async def queued(self, process, sent):
        disk, chance = self.machine.disk, self.chance

        def pause():
            return asyncio.sleep(chance.random() * 0.01)

        pid = QUEUE + b"/pid/%d" % self.count
        try:
            disk.write_new(pid, (b"",), 0o644)
            number = disk.stat(pid).inode
            mess = QUEUE + b"/mess/%d/%d" % (number % 23, number)
            disk.link(pid, mess)
            disk.unlink(pid)
            await pause()
            file = disk.open(mess, write=True)
            file.append((b"Received: (qmail 1 invoked by uid 5)\n" + sent.text,))
            file.close()
            disk.sync_file(mess)
            intd, todo = QUEUE + b"/intd/%d" % number, QUEUE + b"/todo/%d" % number
            content = [b"u5", b"p6", b"F" + sent.sender, *(b"T" + one for one in sent.recipients)]
            disk.write_new(intd, (b"".join(one + b"\0" for one in content),), 0o644)
            disk.sync_file(intd)
            for folder in (mess.rpartition(b"/")[0], QUEUE + b"/intd", QUEUE + b"/pid"):
                disk.sync_folder(folder)
            await pause()
            disk.link(intd, todo)
            disk.sync_folder(QUEUE + b"/todo")
        except OSError as error:
            self.litter = True
            self.ledger.note(f"{sent.name} is not put into todo: {error}")
            return
        self.ledger.accepted[sent.name] = sent
        self.ledger.note(f"{sent.name} is in todo as {number}")
        process.store.look()

    async def administer(self, process, verbs=VERBS):
        numbers = list(process.store.numbers())
        if not numbers:
            return
        some = self.chance.sample(numbers, min(len(numbers), self.chance.randint(1, 3)))
        verb = self.chance.choice(verbs)
        admin = process.admin
        work = {
            "hold": lambda: admin.hold(some, "because"),
            "release": lambda: admin.release(some),
            "retry": lambda: admin.retry(some),
            "flush": admin.flush,
            "delete": lambda: admin.delete(some),
            "bounce": lambda: admin.bounce(some, "Given back."),
        }[verb]
        names = {}
        for number in some:
            try:
                names[number] = name_of(b"".join(process.store.body(number).chunks()))
            except (KeyError, OpenqmailError):
                continue
        if verb == "delete":
            self.ledger.deleted.update(names.values())
        elif verb == "bounce":  # the bounce of a double bounce is nobody's
            self.ledger.deleted.update(
                name for name in names.values() if name.startswith(("bounce of", "notice to"))
            )
        self.ledger.note(f"{verb} {names}")
        task = self.begin(work())
        task.add_done_callback(lambda done: self.ledger.note(f"{verb} {names}: {outcome(done)}"))
        if self.chance.random() < 0.5:
            await asyncio.sleep(self.chance.random() * 2)

    def trouble(self):
        chance, disk = self.chance, self.machine.disk
        kind = chance.random()
        if kind < 0.4:
            self.spoiled = True
            self.ledger.note("a sync will fail")
            disk.faults.fail_sync(times=chance.randint(1, 2))
        elif kind < 0.7:
            free, total = disk.room(QUEUE)
            self.scarce = True
            disk.capacity = (total - free) + chance.choice((0, 200, 3000, 1 << 40))
            self.ledger.note(f"the disk has room for {disk.room(QUEUE)[0]} more bytes")
        else:
            days = chance.choice((-1, 1))
            self.ledger.note(f"the clock jumps by {days} day")
            self.machine.clock.set(self.machine.clock.now() + days * DAY)

    def fail_in_the_layout(self):
        """Rarely in the journal, where it mostly ends the process: of the whole file system, or of what
        has a number's last digit for a name's."""
        chance, disk = self.chance, self.machine.disk
        whole = disk._whole and chance.random() < 0.8
        self.spoiled = True
        self.ledger.note("a sync of the layout will fail")
        suffix = b"/" if whole else b"%d" % chance.randrange(10)
        disk.faults.fail_sync(suffix, times=chance.randint(1, 2), reached=chance.random() < 0.4)

    # --- the account ------------------------------------------------------------------------

    def account(self):
        boxes = self.boxes()
        for sent in self.ledger.accepted.values():
            if any(name.rpartition(" ")[2] == sent.name for name in self.ledger.deleted):
                continue  # it, or what was made of it
            most = 1 + self.ledger.crashes - sent.crashes
            for address in sent.recipients:
                for copy, got, told in self.copies(boxes, sent, address):
                    assert got or told, f"{copy} is lost"
                    times = f"{got} times, with {told} bounces and {most - 1} crashes since"
                    # A file whose sync failed is there all the same, and the administrator may bounce
                    # what is to be tried again.
                    unsynced = self.spoiled and got == 1 and "@here.test" in copy
                    assert got + told <= most or unsynced, f"{copy} was delivered {times}"
                if sent.wishes and sent.sender == b"back@here.test" and address != TELLER:
                    self.is_told(boxes, sent, address)
        self.nothing_is_left()

    def is_told(self, boxes, sent, address):
        """Who wants to know of a delivery is told once, or, where a disk was full, perhaps not."""
        mine = [what for what, _, _ in boxes[b"back"] if what.endswith(f" of {sent.name}")]
        notices = sum(
            address.decode() in re.split(r"[ +]", what) for what in mine if what.startswith("notice")
        )
        failures = self.told(boxes, sent, sent.name, address)
        wanted = (1,) if not (self.scarce or self.spoiled) else (0, 1)
        foreign = notices + failures == 0 and sent.name in self.foreigners
        assert notices + failures in wanted or foreign, (
            f"the sender of {sent.name} was told of {address!r} {notices} and {failures} times"
        )

    def boxes(self):
        """user -> [(name, Delivered-To, content)]"""
        disk, boxes = self.machine.disk, {}
        for user in USERS:
            folder = b"/home/" + user + b"/Maildir/new"
            found = boxes[user] = []
            for name in sorted(disk.names(folder)):
                data = disk.contents(folder + b"/" + name)[0]
                what, to = place = self.ledger.files[stem_of(name)]
                if b"\0" in data or not name.endswith(b",S=%d" % len(data)):
                    self.ledger.is_torn(what, to)
                    continue
                assert place == (name_of(data), data.partition(b"Delivered-To: ")[2].partition(b"\n")[0])
                self.ledger.is_whole(what, to, data)
                found.append((what, to, data))
            places = [(what, to) for what, to, _ in found]
            assert len(places) == len(set(places)), f"{user!r} got one message twice: {places}"
        return boxes

    def copies(self, boxes, sent, address):
        """What becomes of a recipient, each with how often it was delivered, and somebody told that it
        was not."""
        name = sent.name
        told = self.told(boxes, sent, name, address)
        if address != b"teller@here.test":
            yield f"{name} to {address!r}", self.got(boxes, name, address), told
            return
        forward = f"forward of {name}"
        for each in (b"ok-forwarded@there.test", b"alice@here.test"):
            more = self.told(boxes, sent, forward, each)
            yield f"{forward} to {each!r}", self.got(boxes, forward, each), told + more

    def got(self, boxes, name, address):
        """How often a recipient has it."""
        if address.endswith(b"@here.test"):
            user = address.partition(b"@")[0]
            return sum(what == name and to == address for what, to, _ in boxes.get(user, ()))
        return self.ledger.arrived[name, address]

    def told(self, boxes, sent, name, address):
        """How often somebody was told that it could not be delivered there."""
        line = b"<%s>:\n" % address
        if sent.sender == b"fail-sender@there.test" or not sent.sender:
            times = 1 if not sent.sender else 2
            name = "bounce of " * times + name
            return sum(what == name and line in data for what, _, data in boxes[b"postmaster"])
        return sum(what == f"bounce of {name}" and line in data for what, _, data in boxes[b"back"])

    def nothing_is_left(self):
        disk = self.machine.disk
        clean = not (self.ledger.crashes or self.litter)
        for kind in (b"info", b"local", b"remote", *((b"mess",) if clean else ())):
            for part in range(23):
                folder = QUEUE + b"/%s/%d" % (kind, part)
                assert not disk.names(folder), f"{folder!r} has {disk.names(folder)}"
        for kind in (b"bounce", b"todo", b"held", *((b"intd", b"pid") if clean else ())):
            folder = QUEUE + b"/" + kind
            assert not disk.names(folder), f"{folder!r} has {disk.names(folder)}"
        segments = [name for name in disk.names(QUEUE + b"/journal") if name.endswith(b".seg")]
        assert len(segments) == 1, f"the journal keeps {segments}"


def known(stored):
    """What is yet to be done about a message; one that nobody has taken in from todo yet has no key."""
    each = zip(stored.envelope.recipients, stored.progress, strict=True)
    left = [(recipient, progress) for recipient, progress in each if progress.outcome is None]
    key = stored.id.key if stored.channels else None
    return key, stored.birth, stored.envelope.sender, left, stored.due, stored.bounce, stored.held


def outcome(task):
    if task.cancelled():
        return "cancelled"
    return repr(task.exception() or task.result())


def clean_up(loop):
    """End what the process was doing; nothing of it happens any more."""
    loop.over = True
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks and not loop.is_cut:
        loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
    loop.set_exception_handler(lambda *_: None)
    for task in tasks:
        with contextlib.suppress(BaseException):
            task.get_coro().close()
    loop.close()


if __name__ == "__main__":
    import sys

    print(*tell(int(sys.argv[1])).ledger.events, sep="\n")
