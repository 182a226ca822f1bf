"""`openqmail init`: make a home that runs as its owner.

It never overwrites: the folder must be new or empty.  Root names the owner, and becomes that
user before anything is made inside, or makes a home of root's (`--system`, system.py).  What
fails half-way leaves nothing behind.
"""

import argparse
import os
import pwd
import shlex
import time
from collections.abc import Sequence

from openqmail.core.commands import boxes, contents, system
from openqmail.core.commands.command import DONE, example
from openqmail.core.commands.writing import Made, all_or_nothing
from openqmail.core.control import extensions, syntax
from openqmail.core.control.home import Home, check_socket_paths
from openqmail.core.control.modes import PARTS
from openqmail.core.control.owner import acting_as, user_name
from openqmail.core.control.strangers import not_roots
from openqmail.core.control.text import shown
from openqmail.core.tls import self_signed
from openqmail.core.values import HomeError, OpenqmailError

help = "make a home: control files, queue, mailboxes"

LISTEN = "smtp 127.0.0.1:2525"
DATABYTES = 50_000_000
"""A large attachment, in the base64 that makes a third more of it."""
RULES = '127.:allow,RELAYCLIENT=""\n[::1]:allow,RELAYCLIENT=""\n'


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="DIR", help="the folder to make; it must be new or empty")
    parser.add_argument(
        "--me", required=True, metavar="NAME", help="the full name of this host, also a mail domain"
    )
    parser.add_argument(
        "--user",
        required=True,
        action="append",
        metavar="NAME",
        help="a mailbox, once for each; with --system a user of this host; the first gets postmaster's mail",
    )
    parser.add_argument(
        "--local",
        action="append",
        default=[],
        metavar="DOMAIN",
        help="one more domain of ours; may be given several times",
    )
    parser.add_argument(
        "--listen",
        action="append",
        default=[],
        metavar="'SERVICE ADDRESS:PORT'",
        help=f"a listener, once for each; else {LISTEN}, with --system {system.LISTEN}",
    )
    parser.add_argument("--owner", metavar="USER", help="who owns and runs it; root has to say, or --system")
    parser.add_argument(
        "--system",
        action="store_true",
        help="a home of root's: each process gets a user of its own, mail goes to users of this host",
    )
    parser.add_argument(
        "--account",
        action="append",
        default=[],
        metavar="ROLE=USER",
        help="with --system, a user to run a process as; else qmail's users",
    )
    example(
        parser,
        "openqmail init mail --me a.example --user alice --user bob --listen 'smtp 127.0.0.1:2525'",
        "openqmail init /var/qmail --system --me a.example --user alice",
    )


def run(home: Home | None, args: argparse.Namespace) -> int:
    path = os.path.abspath(args.folder)
    if args.system and args.owner:
        raise HomeError("--owner: a --system home is root's; leave one of the two out")
    if args.account and not args.system:
        raise HomeError("--account: only a --system home has users for its processes; add --system")
    files = _control_files(args)
    for name in args.user:
        boxes.check_name(name)
    if len(set(args.user)) < len(args.user):
        raise HomeError("a --user is named twice; name each once")
    if ":" in path or "\n" in path:
        raise HomeError(
            f"{path!r}: users/assign cannot hold a path with a colon or a line end; choose another"
        )
    check_socket_paths(path)
    pem = self_signed(files["me"].strip(), time.time())
    if args.system:
        plan = system.Plan(args.account, args.user, path)
        if why := not_roots(path):
            raise HomeError(f"{path}: {why}; choose another place, or mend that one")
        with plan.accounts() as accounts, all_or_nothing() as made:
            _make_folder(path, 0, 0, made)
            plan.fill(Home(path), accounts, files, pem, made)
        _say(path, args, 0)
        return DONE
    uid, gid = _owner(args.owner)
    with all_or_nothing() as outside:
        _make_folder(path, uid, gid, outside)
        made_home = Home(path)
        with acting_as(uid, gid), all_or_nothing() as made:
            try:
                _fill(made_home, files, pem, args.user, made)
            except PermissionError as error:
                raise HomeError(
                    f"{error.filename or path}: {user_name(uid)} may not write there; choose a folder that "
                    f"{user_name(uid)} can reach"
                ) from None
    _say(path, args, uid)
    return DONE


def _control_files(args: argparse.Namespace) -> dict[str, str]:
    """The control files to write.  Raises HomeError for an argument that would not parse."""
    try:
        me = syntax.host(args.me).decode()
    except ValueError as error:
        raise HomeError(f"--me: {error}") from None
    if "." not in me or me.startswith("["):
        raise HomeError(
            f"--me: '{shown(args.me)}' is not a full name; write one with a dot, like mail.{me}.org"
        )
    domains = [me]
    for text in args.local:
        try:
            domains += [name.decode() for name in syntax.domain(text)[:1]]
        except ValueError as error:
            raise HomeError(f"--local: {error}") from None
    listen = _listen(args)
    for text in listen:
        try:
            extensions.find("openqmail.services", syntax.listener(text).service)
        except (ValueError, OpenqmailError) as error:
            raise HomeError(f"--listen: {error}") from None
    ours = "".join(f"{name}\n" for name in dict.fromkeys(domains))
    return {
        "me": f"{me}\n",
        "locals": ours,
        "rcpthosts": ours,
        "listen": "".join(f"{line}\n" for line in dict.fromkeys(listen)),
        "rules": RULES,
        "databytes": f"{DATABYTES}\n",
        "defaultdelivery": "./Maildir/\n",
        "bounceformat": "dsn\n",
    }


def _listen(args: argparse.Namespace) -> list[str]:
    return args.listen or [system.LISTEN if args.system else LISTEN]


def _owner(name: str | None) -> tuple[int, int]:
    """uid and gid of the new home."""
    me = os.geteuid()
    if name is None:
        if me == 0:
            raise HomeError("root must say who owns the home and runs it: --owner USER, or --system")
        return me, os.getegid()
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise HomeError(f"--owner: there is no user '{shown(name)}'; see getent passwd") from None
    if entry.pw_uid == 0:
        raise HomeError("--owner: root runs no home whole; name another user, or use --system")
    if me not in (0, entry.pw_uid):
        raise HomeError(f"--owner: only root can make a home for {name}; leave --owner out, or be root")
    return entry.pw_uid, entry.pw_gid


def _make_folder(path: str, uid: int, gid: int, made: Made) -> None:
    """The folder itself; an empty one that is there is taken."""
    try:
        made.folder(path, 0o755)
    except FileExistsError:
        if not os.path.isdir(path):
            raise HomeError(f"{path}: is there already and is not a folder; choose another name") from None
        if os.path.isdir(os.path.join(path, "control")):
            raise HomeError(f"{path}: is a home already; nothing was changed") from None
        if os.listdir(path):
            raise HomeError(f"{path}: is not empty; choose a new or an empty folder") from None
        if os.stat(path).st_uid not in (uid, os.geteuid()):
            raise HomeError(f"{path}: belongs to {user_name(os.stat(path).st_uid)}; choose another") from None
    except FileNotFoundError:
        parent = os.path.dirname(path)
        raise HomeError(f"{parent}: is not there; make it first: mkdir -p {shlex.quote(parent)}") from None
    except NotADirectoryError:
        raise HomeError(f"{os.path.dirname(path)}: is not a folder; choose another place") from None
    except PermissionError:
        raise HomeError(
            f"{os.path.dirname(path)}: {user_name(os.geteuid())} may not write there; choose another place"
        ) from None
    if os.geteuid() == 0:
        os.chown(path, uid, gid, follow_symlinks=False)


def _fill(home: Home, files: dict[str, str], pem: bytes, names: Sequence[str], made: Made) -> None:
    for name, part in PARTS.items():
        if name:
            made.folder(os.path.join(home.path, name), part.private)
    contents.queue(home, made)
    for name in names:
        made.maildir(os.path.join(home.mail, name))
    contents.aliases(home, f"{names[0]}@{files['me'].strip()}", made)
    contents.users(home, boxes.assignments(home, names), made)
    contents.control(home, files, made)
    contents.certificate(home, pem, made)


def _say(path: str, args: argparse.Namespace, uid: int) -> None:
    print(f"made {path}, which belongs to {user_name(uid)}:")
    print(f"  control/  this is {args.me}, listening at {', '.join(_listen(args))}")
    where = "users/    mail for" if args.system else "mail/     mailboxes"
    print(f"  {where}: {', '.join(args.user)}; postmaster's mail goes to {args.user[0]}")
    print("  tls       control/servercert.pem is self-signed: nobody can verify it; see 'openqmail tls show'")
    print("  queue/    empty")
    print(f"next: openqmail --home {shlex.quote(path)} run")
