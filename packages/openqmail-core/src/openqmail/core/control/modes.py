"""Whose each part of a home is, and its mode: one table, which `init` makes and `check` asks for.

`examine` looks at a home by its owners and modes alone: for each process and for anybody else
it works out what can be searched, read and written from `/` on, and says what is more than the
table gives, or less, and what is missing.  Nothing is changed and no file is opened but
users/assign and control/defaultdelivery.  Access control lists are not looked at, nor groups
beyond the one that `become` leaves.
"""

import os
import shlex
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from errno import EACCES

import msgspec

from openqmail.core.control.accounts import Account, Accounts
from openqmail.core.control.assign import Assignment, parse_assign
from openqmail.core.control.home import Home
from openqmail.core.control.owner import BEGUN, to_make, user_name
from openqmail.core.control.reader import NO_CDB, content
from openqmail.core.control.settings import ACCOUNTS
from openqmail.core.control.strangers import SECRETS, folders_to, replaceable
from openqmail.core.values import ControlError

ROOT, ANY = "root", "any"


class Part(msgspec.Struct, frozen=True):
    """A folder of a home.  `owner`: root or a role, in a home of root's; in any other all is its
    owner's.  `mode`: in a home of root's; `private`: in any other.  `inside`: whose what is in it
    is, and with which mode, of a folder; a file has it without the right to run.  `users`: the roles
    that have to come in ("" for anybody), so far as the mode lets them."""

    owner: str
    mode: int
    private: int
    inside: tuple[str, int]
    users: tuple[str, ...] = ()


PARTS = {
    "": Part(ROOT, 0o755, 0o755, (ANY, 0o755), ("", *ACCOUNTS)),
    "control": Part(ROOT, 0o755, 0o755, (ROOT, 0o755), ("smtpd", "gate", "send", "remote")),
    "users": Part(ROOT, 0o755, 0o755, (ROOT, 0o755), ("gate", "send", "smtpd")),
    "alias": Part("alias", 0o2755, 0o755, ("alias", 0o755), ("alias",)),
    "queue": Part("send", 0o700, 0o700, ("send", 0o700), ("send",)),
    "run": Part(ROOT, 0o711, 0o700, (ANY, 0o700), ("",)),
    "mail": Part(ROOT, 0o755, 0o755, (ANY, 0o700)),
}
"""The folders of a home; "" is the home itself."""

FILES = {
    "run/submit": (ANY, 0o666),
    "control/servercert.pem": (ROOT, 0o400),
    **{name: (role, 0o400) for name, role in SECRETS.items()},
}
"""Owner and mode of single files; in a home that is not root's the owner may write them, too.  A secret is
its one reader's: qmail's groups have several users each, so a group that may read it would be too many.  Root
may own it as well.  The keys of TLS for clients are root's, who reads them before `smtpd` becomes its user;
those in control/certs/ like servercert.pem."""

KEPT = (*SECRETS, "control/servercert.pem", "control/certs")
"""Where keys and passwords are."""

FEW = 3
"""Files of one folder that are named for the same fault."""

_READ, _WRITE, _SEARCH = 4, 2, 1

_WORKED_IN = ("queue", "run")
_OWN = (*_WORKED_IN, "control", "users", "alias")
"""Where an owner needs his own rights; root has them anyway."""


class Finding(msgspec.Struct, frozen=True):
    """`thing`: what is wrong, `place`: the path, `remedy`: what to do."""

    thing: str
    place: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.place}: {self.thing}; {self.remedy}"


class Facts(msgspec.Struct, frozen=True):
    """Of stat(2), what decides."""

    uid: int
    gid: int
    mode: int


class Subject(msgspec.Struct, frozen=True):
    """Who might read or write: a process, or somebody of no consequence (uid -1)."""

    role: str
    label: str
    uid: int
    gid: int

    def may(self, what: int, found: Facts) -> bool:
        shift = 6 if self.uid == found.uid else 3 if self.gid == found.gid else 0
        return bool(found.mode >> shift & what)


ANYBODY = Subject("", "anybody", -1, -1)

Subjects = tuple[Subject, ...]


def examine(home: Home, accounts: Accounts) -> list[Finding]:
    """All that is wrong in owners and modes.  To be called as root in a home of root's, else as its
    owner.  Raises HomeError, OSError."""
    return list(_few(_Examination(home, accounts).findings()))


def examine_secrets(home: Home, accounts: Accounts) -> list[Finding]:
    """The same of `KEPT` alone, for a quick look."""
    examination = _Examination(home, accounts)
    return list(_few(one for name in KEPT for one in examination.of(name)))


class _Examination:
    def __init__(self, home: Home, accounts: Accounts) -> None:
        self._home = home
        self._accounts = accounts.by_role()
        self._system = home.uid == 0
        self._roles: Subjects = ()
        if self._system:
            self._roles = tuple(
                Subject(role, f"{one.name} ({role})", one.uid, one.gid)
                for role, one in self._accounts.items()
            )
        group = Subject("", "its group", -1, home.gid)
        self._subjects = (*self._roles, ANYBODY) if self._system else (ANYBODY, group)

    def findings(self) -> Iterator[Finding]:
        yield from self._shared()
        within, cannot = self._reaching(self._home.path, self._subjects)
        for one, folder in cannot:
            if one.role:
                remedy = f"move the home, or: chmod a+x {shlex.quote(folder)}"
                yield Finding(f"{one.label} cannot pass", folder, remedy)
        yield from self._above()
        yield from self._look("", self._home.path, within)
        yield from self._users()

    def of(self, name: str) -> Iterator[Finding]:
        """What is wrong with one thing of the home, if it is there."""
        path = os.path.join(self._home.path, name)
        if os.path.lexists(path):
            within, _ = self._reaching(path, self._subjects)
            yield from self._look(name, path, within)

    # --- one thing of the home ----------------------------------------------------------------

    def _look(self, name: str, path: str, within: Subjects) -> Iterator[Finding]:
        part = PARTS.get(name)
        try:
            found = _facts(os.lstat(path) if part is None else os.stat(path))
        except FileNotFoundError:  # a file of a running service that has gone
            if part is not None and name != "mail":  # which another qmail does not have
                mode = part.mode if self._system else part.private
                places = [path, os.path.join(path, BEGUN)] if name == "queue" else [path]
                made = to_make(places, mode, *self._ids(part.owner))
                yield Finding("is missing", path, f"restore what was there, or: {made}")
            return
        except OSError as error:
            yield _unreadable(path, error)
            return
        if name == "queue" and self._system and (foreign := _foreign(path, self._accounts["send"])):
            yield self._takeover(path, foreign)
            return
        folder = stat.S_ISDIR(found.mode)
        owner, mode = self._wanted(name, folder)
        uid = self._uid(owner, found.uid)
        if found.uid != uid and not (found.uid == 0 and self._system and owner != "send"):
            recursive = "-R " if folder and name else ""
            remedy = f"chown {recursive}{user_name(uid)} {shlex.quote(path)}"
            yield Finding(f"belongs to {user_name(found.uid)}, not to {user_name(uid)}", path, remedy)
            return
        if stat.S_ISLNK(found.mode):
            return
        told: set[Subject] = set()
        for who, verb, remedy in self._access(name, found, Facts(uid, found.gid, mode), within):
            told.update(who)
            place = shlex.quote(path)
            exact = name in PARTS or name in FILES or name.startswith("control/certs/")
            change = f"{mode:o}" if exact else remedy
            yield Finding(f"{', '.join(one.label for one in who)} {verb}", path, f"chmod {change} {place}")
        if folder:
            if not os.access(path, os.R_OK | os.X_OK, effective_ids=True):
                if all(one.uid != found.uid for one in told):
                    yield _unreadable(path, PermissionError(EACCES, os.strerror(EACCES)))
                return
            entered = tuple(one for one in within if one not in told and one.may(_SEARCH, found))
            yield from self._inside(name, path, entered)

    def _inside(self, name: str, path: str, within: Subjects) -> Iterator[Finding]:
        try:
            names = sorted(os.listdir(path))
        except FileNotFoundError:
            return
        except OSError as error:
            yield _unreadable(path, error)
            return
        if not name:
            names = [part for part in PARTS if part] + [one for one in names if one not in PARTS]
        for one in names:
            yield from self._look(os.path.join(name, one), os.path.join(path, one), within)

    def _access(
        self, name: str, found: Facts, meant: Facts, within: Subjects
    ) -> Iterator[tuple[Subjects, str, str]]:
        """Who may do more than the table gives, or less: (who, what, change of the mode)."""
        part = PARTS.get(name.partition("/")[0])
        users = part.users if part is not None and self._system and name not in FILES else ()
        bits = (_READ, _SEARCH) if stat.S_ISDIR(found.mode) else (_READ,)
        for what, verb, remedy in (
            (_WRITE, "may write to it, and must not", "go-w"),
            (_READ, "may read it, and must not", "go-rwx"),
        ):
            more = tuple(one for one in within if one.may(what, found) and not one.may(what, meant))
            if more:
                yield more, verb, remedy
        less = tuple(
            one
            for one in within
            if one.role in users and any(one.may(bit, meant) and not one.may(bit, found) for bit in bits)
        )
        if less:
            yield less, "cannot come by it, and has to", "a+rX"
        own = 0o700 if stat.S_ISDIR(found.mode) else 0o400
        if (
            name.partition("/")[0] in (_WORKED_IN if self._system else _OWN)
            and meant.mode & ~found.mode & own
        ):
            owner = Subject("", user_name(found.uid), found.uid, found.gid)
            yield (owner,), "may not work with it, and has to", "u+rwX"

    def _wanted(self, name: str, folder: bool) -> tuple[str, int]:
        """Owner and mode by the table."""
        if name in PARTS:
            part = PARTS[name]
            return part.owner, part.mode if self._system else part.private
        if os.path.dirname(name) == "control/certs" and not folder:
            name = "control/servercert.pem"
        if name in FILES:
            owner, mode = FILES[name]
            return owner, mode if self._system else mode | 0o200
        owner, mode = PARTS.get(name.partition("/")[0], PARTS[""]).inside
        return owner, mode if folder else mode & 0o666

    def _uid(self, owner: str, present: int) -> int:
        if not self._system:
            return self._home.uid
        if owner == ANY:
            return present
        return 0 if owner == ROOT else self._accounts[owner].uid

    def _ids(self, owner: str) -> tuple[int, int]:
        """uid and gid of what belongs to root or a role."""
        if not self._system:
            return self._home.owner
        return (0, 0) if owner == ROOT else (self._accounts[owner].uid, self._accounts[owner].gid)

    # --- around it ----------------------------------------------------------------------------

    def _shared(self) -> Iterator[Finding]:
        """Two roles with one user are one process to the system."""
        by_uid: dict[int, str] = {}
        for role, one in self._accounts.items() if self._system else ():
            other = by_uid.setdefault(one.uid, role)
            if other != role:
                thing = f"{other} and {role} both run as {one.name}"
                yield Finding(thing, "control/accounts", f"give {role} a user of its own")

    def _above(self) -> Iterator[Finding]:
        """Whoever may write to a folder above the home may put another in its place."""
        for folder, owner in replaceable(self._home.path, (0, self._home.uid)):
            if owner:
                thing = f"belongs to {owner}, who may put another home in place of this one"
                yield Finding(thing, folder, "move the home, or change the owner")
            else:
                thing = "others may write to it, and put another home in place of this one"
                yield Finding(thing, folder, f"move the home, or: chmod +t {shlex.quote(folder)}")

    def _reaching(self, path: str, subjects: Subjects) -> tuple[Subjects, list[tuple[Subject, str]]]:
        """Who can come as far as the folder that `path` is in; the others with where they are stopped."""
        cannot: list[tuple[Subject, str]] = []
        for folder in folders_to(path):
            found = _facts(os.stat(folder))
            cannot += [(one, folder) for one in subjects if not one.may(_SEARCH, found)]
            subjects = tuple(one for one in subjects if one.may(_SEARCH, found))
        return subjects, cannot

    def _takeover(self, queue: str, foreign: str) -> Finding:
        send, remote = self._accounts["send"].name, self._accounts["remote"].name
        theirs = f"info local remote bounce lock/sendmutex lock/trigger && chown {remote} lock/tcpto"
        return Finding(
            f"is another qmail's: mess, todo, intd and pid belong to {foreign}, and {send} must own them",
            queue,
            f"to take it over, stop the other qmail, then: cd {shlex.quote(queue)} && chown -R {send} . && "
            f"chmod 700 .; to give it back: cd {shlex.quote(queue)} && chown -R {foreign} . && "
            f"chown -R {send} {theirs} && chmod 750 .",
        )

    def _users(self) -> Iterator[Finding]:
        """Those of users/assign: that each can be given mail, and that no process reads their Maildirs; nor
        is a worker's user one of a process, whose files programs of that user could reach."""
        if not os.path.isdir(self._home.users):
            return  # told as a part of the home
        assign, cdb = (os.path.join(self._home.users, name) for name in ("assign", "cdb"))
        try:
            with open(assign, "rb") as opened:
                lines, _ = parse_assign(opened.read())
        except PermissionError:
            return  # told as a part of the home
        except OSError as error:
            yield Finding(f"cannot be read: {error.strerror}", assign, "restore it")
            return
        if not os.path.isfile(cdb):
            yield Finding("is missing", cdb, NO_CDB)
        users: dict[tuple[str, int], list[Assignment]] = {}
        for one in lines:
            users.setdefault((os.fsdecode(one.user.home), one.user.uid), []).append(one)
        closed = {one.uid: f"the user of {role}" for role, one in self._accounts.items() if role != "alias"}
        closed[0] = "root"
        for (folder, uid), theirs in users.items():
            name = os.fsdecode(theirs[0].user.name)
            if uid in closed and self._system:
                yield Finding(f"gives mail to {closed[uid]}, for {name}", "users/assign", "name another user")
                continue
            try:
                yield from self._lacking(folder, theirs)
                if self._system:
                    yield from self._user(folder, uid, name)
            except (OSError, ControlError):
                continue  # no home: `control check` says so; no Maildir: told, or not wanted

    def _lacking(self, folder: str, lines: list[Assignment]) -> Iterator[Finding]:
        """What a Maildir of a user needs to take mail, where mail without a .qmail file goes to it."""
        user, maildir = lines[0].user, os.path.join(folder, "Maildir")
        os.stat(os.path.join(folder, "."))  # else what is in it would seem to be missing
        if not os.path.lexists(maildir):
            whole = any(not (one.wildcard or one.user.dash or one.user.ext) for one in lines)
            usual = (content(self._home, "defaultdelivery") or b"./Maildir/").strip() == b"./Maildir/"
            if not (whole and usual) or os.path.lexists(os.path.join(folder, ".qmail")):
                return
        else:
            os.stat(os.path.join(maildir, "."))
        waits = f"mail for {os.fsdecode(user.name)} waits"
        places = [maildir, *(os.path.join(maildir, name) for name in ("tmp", "new", "cur"))]
        if missing := [place for place in places if not os.path.lexists(place)]:
            made = to_make(missing, 0o700, user.uid, user.gid)
            yield Finding(f"is missing: {waits}", missing[0], f"restore what was there, or: {made}")
        for place in places[:3]:
            if place not in missing and ~os.stat(place).st_mode & 0o700:
                remedy = f"chmod u+rwx {shlex.quote(place)}"
                yield Finding(
                    f"{user_name(os.stat(place).st_uid)} may not write to it: {waits}", place, remedy
                )

    def _user(self, folder: str, uid: int, name: str) -> Iterator[Finding]:
        if os.stat(folder).st_mode & 0o002:
            remedy = f"chmod o-w {shlex.quote(folder)}"
            yield Finding(f"anybody may write to it: mail for {name} waits", folder, remedy)
        maildir = os.path.join(folder, "Maildir")
        found, place = _facts(os.lstat(maildir)), shlex.quote(maildir)
        if stat.S_ISLNK(found.mode):
            return
        if found.uid != uid:
            thing = f"belongs to {user_name(found.uid)}: mail for {name} waits"
            yield Finding(thing, maildir, f"chown -R {name} {place}")
            return
        within, _ = self._reaching(maildir, tuple(one for one in self._subjects if one.uid != uid))
        for what, verb, remedy in (
            (_WRITE, "may write to it, and must not", f"chmod go-w {place}"),
            (_READ, "may read it, and must not", f"chmod go-rwx {place}"),
        ):
            told = [one.label for one in within if one.may(what, found)]
            if told:
                yield Finding(f"{', '.join(told)} {verb}", maildir, remedy)


def _facts(found: os.stat_result) -> Facts:
    return Facts(found.st_uid, found.st_gid, found.st_mode)


def _unreadable(path: str, error: OSError) -> Finding:
    """Of a part that keeps its owner out, or whose disk fails; what is in it is not looked at."""
    remedy = "mend its disk, or restore what was there"
    if isinstance(error, PermissionError):
        remedy = f"chmod u+rwX {shlex.quote(path)}"
    return Finding(f"cannot be read: {error.strerror}", path, remedy)


def _foreign(queue: str, send: Account) -> str:
    """Whose a queue is that another qmail has made; empty for one of ours, or none."""
    try:
        uid = os.stat(os.path.join(queue, "mess")).st_uid
    except OSError:
        return ""
    return "" if uid in (0, send.uid) else user_name(uid)


def _few(findings: Iterable[Finding]) -> Iterator[Finding]:
    """The first few of a fault that many files of a folder have, and how many more there are."""
    counted: Counter[tuple[str, str]] = Counter()
    for one in findings:
        key = os.path.dirname(one.place), one.thing
        counted[key] += 1
        if counted[key] <= FEW:
            yield one
    for (folder, thing), count in counted.items():
        if count > FEW:
            yield Finding(f"{thing}: {count - FEW} more in this folder", folder, "as those above")
