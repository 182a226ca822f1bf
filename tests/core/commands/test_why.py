"""`openqmail why ADDRESS` where no service runs: which lines and files decide; nothing is changed."""

import asyncio
import fcntl
import importlib.util
import json
import os
import pwd
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.remote.tcpto import Silence

Run = Callable[..., Any]
Steps = list[tuple[str, str]]


def control(home: Path, name: str, text: str) -> None:
    (home / "control" / name).write_text(text)


def why(run: Run, home: Path, address: str, *more: str) -> tuple[dict[str, Any], Steps, int]:
    """The object, its steps, the exit code."""
    ran = run("--home", home, "why", address, "--json", *more)
    assert ran.err == "", ran.err
    found = json.loads(ran.out)
    return found, [(one["what"], one["text"]) for one in found["steps"]], ran.code


def qmail(home: Path, name: str, text: str, mode: int = 0o644) -> None:
    """A .qmail file of alice's."""
    path = home / "mail/alice" / name
    path.write_text(text)
    path.chmod(mode)
    os.chown(path, home.stat().st_uid, home.stat().st_gid)


def test_a_user_of_this_host(made: Path, run: Run) -> None:
    found, steps, code = why(run, made, "Alice@A.example")
    box = f"{made}/mail/alice"
    assert steps[0] == ("control/locals line 1", "a domain of this host: Alice@A.example")
    assert steps[1][0] == "users/assign line 1 (exact =alice)"
    assert steps[2:5] == [
        (box, ".qmail is not there"),
        (box, "the default delivery"),
        (f"{box}/Maildir/", "a message is put into this Maildir"),
    ]
    assert steps[5] == ("control/rcpthosts line 1", "anybody may send to this domain")
    assert (code, found["outcome"], found["channel"]) == (0, "success", "local")


def test_a_virtual_domain_a_wildcard_and_the_file_that_decides(made: Path, run: Run) -> None:
    control(made, "virtualdomains", "# ours\nx.example:nobody\n.example:alice-all\n")
    qmail(made, ".qmail-all-default", "./Maildir/\n")
    _, steps, code = why(run, made, "sales@q.example")
    box = f"{made}/mail/alice"
    assert steps[0] == (
        "control/virtualdomains line 3 (.example)",
        "says how the address is delivered: alice-all-sales@q.example",
    )
    assert steps[1][0] == "users/assign line 2 (wildcard +alice-)"
    assert steps[2:4] == [(box, ".qmail-all-sales is not there"), (box, ".qmail-all-default decides")]
    assert code == 0


def test_an_address_without_a_domain_and_one_behind_a_percent_sign(made: Path, run: Run) -> None:
    control(made, "percenthack", "b.example\na.example\n")
    found, steps, _ = why(run, made, "alice%a.example%b.example")
    assert [what for what, _ in steps[:2]] == [
        "control/me (control/envnoathost is not there)",
        "control/percenthack line 2",
    ]
    assert found["routed"] == "alice@a.example"


@pytest.mark.parametrize(("check", "words"), [("0", "is off"), ("1", "550 5.1.1 Sorry, no mailbox here")])
def test_nobody_of_that_name(made: Path, run: Run, check: str, words: str) -> None:
    control(made, "checkrcpt", check)
    found, steps, code = why(run, made, "alice-x@a.example")
    assert code == 100 and found["text"] == "Sorry, no mailbox here by that name. (#5.1.1)\n"
    assert steps[-1][0] == "control/checkrcpt" and words in steps[-1][1]
    ran = run("--home", made, "why", "alice-x@a.example")
    assert ran.code == 100
    assert ran.out.endswith("mail would be refused for good: Sorry, no mailbox here by that name. (#5.1.1)\n")


def test_an_alias_tells_where_it_forwards_to_and_follows_no_further(made: Path, run: Run) -> None:
    (made / "alias/.qmail-abuse").write_text("&postmaster@a.example\n&far@c.example\n")
    _, steps, code = why(run, made, "abuse@a.example")
    assert steps[1][0] == "users/assign" and str(made / "alias") in steps[1][1]
    assert [text for what, text in steps if what == "forward"] == [
        "to postmaster@a.example, of this host, delivered as postmaster@a.example",
        "to far@c.example, of another host: far@c.example",
    ]
    assert not any("alice" in text for _, text in steps)
    assert code == 0


def test_what_keeps_mail_waiting_is_told_and_to_a_client_only_that_it_waits(made: Path, run: Run) -> None:
    control(made, "checkrcpt", "1")
    qmail(made, ".qmail-prog", "|vacation\n")
    found, steps, code = why(run, made, "alice-prog@a.example")
    assert code == 111 and found["outcome"] == "deferral" and "line 1" in found["text"]
    assert "451" in steps[-1][1] and "qmail" not in steps[-1][1]
    qmail(made, ".qmail-open", "./Maildir/\n", 0o666)
    assert why(run, made, "alice-open@a.example")[2] == 111
    (made / "mail/alice/Maildir").rename(made / "mail/alice/gone")
    found, steps, code = why(run, made, "alice@a.example")
    assert code == 111 and found["text"] == "Unable to chdir to maildir. (#4.2.1)\n"
    assert (f"{made}/mail/alice/Maildir/", "it is not there") in steps
    (made / "users/cdb").unlink()
    found, steps, code = why(run, made, "alice@a.example")
    assert code == 111 and steps[1][0] == "users/cdb"


def test_what_only_a_delivery_meets_is_not_told_to_a_client(made: Path, run: Run) -> None:
    """RCPT looks for what the .qmail files say, and not into a Maildir."""
    control(made, "checkrcpt", "1")
    box = made / "mail/alice"
    (box / "half").mkdir()
    (box / "file").write_text("")
    for line, trouble in (
        ("./Nodir/", "it is not there"),
        ("./half/", "tmp/ in it: it is not there"),
        ("./file/", "it is not a folder, or is in none"),
        ("./no/mbox", f"it is not there, and {box}/no: it is not there"),
        ("./Maildir", "it is not a regular file; only with a / at its end a line names a Maildir"),
    ):
        qmail(made, ".qmail", f"{line}\n")
        _, steps, code = why(run, made, "alice@a.example")
        assert code == 111 and steps[-1][1] == "RCPT is accepted"
        assert (f"{box}/{line[2:]}", trouble) in steps


@pytest.mark.skipif(os.geteuid() != 0, reason="its owner may do everything")
def test_a_maildir_that_its_user_cannot_write_to_is_told_apart(made: Path, run: Run) -> None:
    if made.stat().st_uid == 0:
        pytest.skip("a home whose users root would be")
    (made / "mail/alice/Maildir/tmp").chmod(0o500)
    _, steps, code = why(run, made, "alice@a.example")
    assert code == 111 and steps[-1][1] == "RCPT is accepted"
    assert (f"{made}/mail/alice/Maildir/", "this user cannot write to tmp/ in it") in steps


def test_a_locked_mbox_is_told_by_its_path(made: Path, run: Run) -> None:
    box = made / "mail/alice/box"
    box.touch(0o600)
    os.chown(box, made.stat().st_uid, made.stat().st_gid)
    qmail(made, ".qmail", "./box\n")
    with box.open() as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        found, steps, code = why(run, made, "alice@a.example")
        assert code == 111 and "locked" in found["text"] and "locked" in dict(steps)[str(box)]
    assert why(run, made, "alice@a.example")[2] == 0


def test_an_mbox_that_is_no_file_keeps_mail_waiting(made: Path, run: Run) -> None:
    alice = made / "mail/alice"
    (alice / "folder").mkdir()
    os.mkfifo(alice / "fifo")
    (alice / "later").symlink_to("not-there-yet")
    qmail(made, ".qmail-later", "./later\n")
    _, steps, code = why(run, made, "alice-later@a.example")
    assert (f"{alice}/later", "a message is put at the end of this mbox") in steps and code == 0
    for name in ("folder", "fifo"):
        qmail(made, ".qmail-odd", f"./{name}\n")
        found, steps, code = why(run, made, "alice-odd@a.example")
        assert any(what == f"{alice}/{name}" and "it is not a regular file" in text for what, text in steps)
        assert (code, found["outcome"]) == (111, "deferral")
        assert found["text"] == f"Unable to open ./{name}: not a regular file. (#4.2.1)\n"


def test_a_route_a_source_address_and_no_service_to_ask(made: Path, run: Run) -> None:
    control(made, "smtproutes", "\nb.example:[127.0.0.1]:2599\n:relay.example\n")
    control(made, "bindings", "a.example:127.0.0.2:-:out.a.example\n*:*:*:\n")
    found, steps, code = why(run, made, "bob@b.example", "--sender", "alice@a.example")
    assert dict(steps)["control/smtproutes line 2"] == "goes to [127.0.0.1] port 2599"
    assert dict(steps)["control/bindings line 1"] == "IPv4 from 127.0.0.2; HELO out.a.example"
    assert ("way", "1: [127.0.0.1] at 127.0.0.1 port 2599") in steps
    assert steps[-1] == ("destination", "not known: no service runs")
    assert (code, found["channel"], found["destination"]) == (0, "remote", None)
    _, steps, _ = why(run, made, "bob@b.example")
    assert dict(steps)["control/bindings line 2"].startswith("IPv6 from any address, IPv4 from any address")


def test_a_wrong_line_stops_only_what_goes_by_it(made: Path, run: Run) -> None:
    control(made, "smtproutes", "b.example:::1\n")
    _, steps, code = why(run, made, "alice@a.example")
    assert code == 0
    assert steps[-1][0] == "besides" and steps[-1][1].startswith("control/smtproutes, line 1: '::1' is IPv6")
    ran = run("--home", made, "why", "bob@b.example")
    assert ran.code == 100 and "control/smtproutes, line 1" in ran.err and ran.out == ""
    control(made, "locals", "a..b\n")
    assert run("--home", made, "why", "alice@a.example").code == 100


def test_whose_mail_it_would_be_is_said_when_nobody_was_named(made: Path, run: Run) -> None:
    asked = "(a bounce's; --sender asks for another)"
    assert asked in run("--home", made, "why", "alice@a.example").out.splitlines()[0]
    assert asked not in run("--home", made, "why", "alice@a.example", "--sender", "<>").out
    assert "an empty name" in run("--home", made, "why", "alice@").out


def test_how_much_tls_mail_needs_and_who_says_so(made: Path, run: Run) -> None:
    control(made, "smtproutes", "b.example:[127.0.0.1]\nc.example:[127.0.0.2]\nd.example:[127.0.0.3]:587\n")
    control(made, "tlspolicy", "# ours\nb.example encrypt\n")
    (made / "control" / "notlshosts").mkdir()
    control(made, "notlshosts/[127.0.0.2]", "")
    control(made, "credentials", "[127.0.0.3] joe a-secret\n")
    _, steps, _ = why(run, made, "x@b.example")
    assert ("control/tlspolicy line 2", "[127.0.0.1]: encrypt, never without TLS, whoever it is") in steps
    _, steps, _ = why(run, made, "x@c.example")
    (text,) = [text for what, text in steps if what == "control/tlspolicy"]
    assert text == "[127.0.0.2]: none, TLS is never begun (there is a file control/notlshosts/[127.0.0.2])"
    found, steps, _ = why(run, made, "x@d.example")
    (text,) = [text for what, text in steps if what == "control/tlspolicy"]
    assert text.startswith("[127.0.0.3]: verify, never without TLS and a certificate that is believed, for")
    assert "a login is told to [127.0.0.3]" in text
    assert ("login", "we say by AUTH who we are to [127.0.0.3]") in steps and "a-secret" not in str(found)
    (made / "control" / "tlspolicy").unlink()
    _, steps, _ = why(run, made, "x@b.example")
    (text,) = [text for what, text in steps if what == "control/tlspolicy"]
    assert text.endswith("may, TLS where it is offered, whoever it is (no line speaks of it)")


def test_a_source_address_that_this_host_does_not_have(made: Path, run: Run) -> None:
    control(made, "smtproutes", ":[127.0.0.1]:2599\n")
    control(made, "bindings", "*:198.51.100.77:-:\n")
    found, _, code = why(run, made, "bob@b.example")
    assert code == 111 and "198.51.100.77" in found["text"]
    control(made, "bindings", "*:-:*:\n")
    found, _, code = why(run, made, "bob@b.example")
    assert code == 111 and "control/bindings" in found["text"]


def test_an_address_that_was_silent_is_left_alone(made: Path, run: Run) -> None:
    control(made, "smtproutes", "b.example:[127.0.0.9]:2599\nc.example:[127.0.0.9],[127.0.0.8]:2599\n")
    records: list[Silence] = []

    def silent(count: int, ago: int) -> None:
        records[:] = [Silence(bytes([127, 0, 0, 9]), count, int(time.time()) - ago)]
        data = b"".join(
            one.address + bytes([one.count, 0, 0, 0]) + one.when.to_bytes(4, "little") + bytes(4)
            for one in records
        )
        (made / "queue/lock/tcpto").write_bytes(data.ljust(1024, b"\0"))

    def ways(address: str) -> tuple[list[str], int]:
        _, steps, code = why(run, made, address)
        return [text for what, text in steps if what == "way"], code

    silent(2, 60)
    [way], code = ways("x@b.example")
    assert code == 111 and "it was silent, and is left alone" in way
    six = bytes(15) + b"\1" + bytes([2, 0, 0, 0]) + int(time.time() - 60).to_bytes(4, "little") + bytes(8)
    (made / "queue/lock/tcpto").write_bytes(bytes(1024) + six)
    control(
        made,
        "smtproutes",
        "b.example:[127.0.0.9]:2599\nc.example:[127.0.0.9],[127.0.0.8]:2599\nsix.example:[::1]:2599\n",
    )
    [way], code = ways("x@six.example")
    assert code == 111 and "it was silent, and is left alone" in way
    silent(2, 60)
    first, second = ways("x@c.example")[0]
    assert "left alone" in first and "left alone" not in second
    assert ways("x@c.example")[1] == 0
    silent(2, 4500)
    [way], code = ways("x@b.example")
    assert code == 0 and "may be left alone" in way
    for count, ago in ((1, 60), (2, 9000)):
        silent(count, ago)
        [way], code = ways("x@b.example")
        assert code == 0 and "alone" not in way


@pytest.fixture
def nameserver() -> Iterator[Any]:
    """A name server on loopback, in a thread; `.records` may be changed."""
    path = Path(__file__).parents[1] / "dns" / "nameserver.py"
    spec = importlib.util.spec_from_file_location("nameserver_of_why", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Nameserver({})
    ready, loop = threading.Event(), asyncio.new_event_loop()
    ended = asyncio.Event()

    async def serve() -> None:
        async with server:
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield server
    loop.call_soon_threadsafe(ended.set)
    thread.join()
    loop.close()


def test_what_the_dns_says_and_what_is_proved(made: Path, run: Run, nameserver: Any) -> None:
    nameserver.records |= {
        ("b.test", "MX"): ["20 back.b.test.", "10 mx.b.test."],
        ("mx.b.test", "A"): ["198.51.100.1"],
        ("mx.b.test", "AAAA"): ["2001:db8::1"],
        ("back.b.test", "A"): ["198.51.100.2"],
        ("ours.test", "MX"): ["10 mx.b.test.", "20 us.test.", "20 back.b.test."],
        ("us.test", "A"): ["127.0.0.1"],
        ("loop.test", "MX"): ["10 us.test."],
        ("null.test", "MX"): ["0 ."],
        ("broken.test", "MX"): "SERVFAIL",
    }
    nameserver.authentic = {"b.test"}
    control(made, "resolvers", f"127.0.0.1:{nameserver.port} trusted\n")
    _, steps, code = why(run, made, "bob@B.test")
    assert dict(steps)["MX of b.test"] == "10 mx.b.test, 20 back.b.test (DNSSEC: proved)"
    assert dict(steps)["addresses of mx.b.test"] == "198.51.100.1, 2001:db8::1 (DNSSEC: not proved)"
    assert [text for what, text in steps if what == "way"] == [
        "1: mx.b.test at [2001:db8::1] port 25",
        "2: mx.b.test at 198.51.100.1 port 25",
        "3: back.b.test at 198.51.100.2 port 25",
    ]
    assert code == 0
    _, steps, code = why(run, made, "bob@ours.test")
    assert code == 0 and [text for what, text in steps if what == "no way"] == [
        "us.test is this host itself: 127.0.0.1 is an address of it",
        "back.b.test is no better an exchanger than this host",
    ]
    _, steps, code = why(run, made, "bob@loop.test")
    assert code == 100
    assert ("no way", "us.test is this host itself: 127.0.0.1 is an address of it") in steps
    ran = run("--home", made, "why", "bob@loop.test")
    assert "or A for that host, it isn't in my control/locals file" in ran.out
    _, steps, code = why(run, made, "bob@[127.0.0.2]")
    assert dict(steps)["control/smtproutes"] == "no line for this domain: mail goes to that address"
    found, steps, code = why(run, made, "bob@null.test")
    assert code == 100 and "null" in dict(steps)["MX of null.test"] and "5.1.10" in found["text"]
    found, steps, code = why(run, made, "bob@broken.test")
    assert code == 111 and "SERVFAIL" in dict(steps)["MX of broken.test"]
    found, steps, code = why(run, made, "bob@nowhere.test")
    assert code == 100 and "no name nowhere.test" in dict(steps)["MX of nowhere.test"]


def test_what_holds_by_name_is_told_where_no_address_is_found(made: Path, run: Run, nameserver: Any) -> None:
    nameserver.records |= {
        ("relay.test", "A"): "SERVFAIL",
        ("relay.test", "AAAA"): "SERVFAIL",
        ("b.test", "MX"): ["10 mx.b.test."],
        ("mx.b.test", "A"): "SERVFAIL",
        ("mx.b.test", "AAAA"): "SERVFAIL",
        ("null.test", "MX"): ["0 ."],
    }
    control(made, "resolvers", f"127.0.0.1:{nameserver.port}\n")
    control(made, "smtproutes", "c.test:relay.test:587\n")
    control(made, "credentials", "relay.test joe a-secret\n")
    control(made, "tlspolicy", "b.test secure\nrelay.test encrypt\n")
    found, steps, code = why(run, made, "bob@c.test")
    assert code == 111 and "a-secret" not in str(found)
    assert ("control/tlspolicy line 2", "relay.test: encrypt, never without TLS, whoever it is") in steps
    assert ("login", "we say by AUTH who we are to relay.test") in steps
    _, steps, code = why(run, made, "bob@b.test")
    assert code == 111 and dict(steps)["control/tlspolicy line 1"].startswith("mx.b.test: secure, ")
    _, steps, code = why(run, made, "bob@null.test")
    assert code == 100 and not any("tlspolicy" in what for what, _ in steps)


def test_nothing_in_the_home_is_changed(made: Path, run: Run) -> None:
    def everything() -> dict[str, Any]:
        found = {}
        for path in sorted(made.rglob("*")):
            facts = path.lstat()
            content = path.read_bytes() if stat.S_ISREG(facts.st_mode) else b""
            found[str(path)] = facts.st_mode, facts.st_uid, facts.st_mtime_ns, facts.st_ino, content
        return found

    control(made, "smtproutes", ":[127.0.0.1]:2599\n")
    before = everything()
    for address in ("alice@a.example", "nix@a.example", "postmaster@a.example", "bob@c.example"):
        run("--home", made, "why", address)
    assert run("--home", made, "why", "--message", "17").code == 1
    assert everything() == before


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("a@b", "--message", "7"),
        ("--message", "x"),
        ("--message", "7", "--sender", "a@b"),
        ("a@b", "--all"),
        ("",),
        ("a@b\nc",),
        ("a" * 1001,),
        ("a@b", "--sender", "x\x7f"),
    ],
)
def test_misuse_is_told(made: Path, run: Run, words: tuple[str, ...]) -> None:
    ran = run("--home", made, "why", *words)
    assert ran.code == 100 and ran.err.startswith("openqmail: ") and ran.out == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_somebody_else_is_told_nothing(made: Path, run: Run) -> None:
    other = pwd.getpwnam("games")
    os.seteuid(other.pw_uid)
    try:
        ran = run("--home", made, "why", "alice@a.example")
    finally:
        os.seteuid(0)
    assert ran.code == 100 and "become its owner" in ran.err


def test_a_result_names_its_recipient_and_what_came_by_smtp_is_said(made: Path, run: Run) -> None:
    folder = made / "queue/history"
    folder.mkdir(mode=0o700, exist_ok=True)
    (folder / "2026-11-28.jsonl").write_text(
        '{"msg":7,"time":1.0,"event":"accepted","bytes":5,"sender":"a@b","uid":4242,"pid":9}\n'
        '{"msg":7,"time":1.0,"event":"starting","delivery":3,"channel":"remote","recipient":"x@y"}\n'
        '{"msg":7,"time":1.5,"event":"delivery","delivery":3,"outcome":"deferral","text":"one\\ntwo\\n"}\n'
    )
    for path in (folder, *folder.iterdir()):
        os.chown(path, made.stat().st_uid, made.stat().st_gid)
    ran = run("--home", made, "why", "--message", "7")
    assert "delivery 3 to x@y, deferral after 0.50 s: one two" in ran.out


def test_odd_things_in_the_record_hold_nobody_up_and_are_told_once(made: Path, run: Run) -> None:
    folder = made / "queue/history"
    folder.mkdir(mode=0o700, exist_ok=True)
    os.mkfifo(folder / "2026-11-27.jsonl")
    odd = folder / "2026-11-28.jsonl"
    odd.write_text(
        '{"msg":7,"time":1.5,"event":"accepted","bytes":5,"sender":"\\u001b[2J"}\n'
        '{"msg":7,"time":1e300,"event":"end"}\n{"msg":7,"time":2.0,"event":"starting","delivery":[1]}\n'
    )
    for path in (folder, *folder.iterdir()):
        os.chown(path, made.stat().st_uid, made.stat().st_gid)
    ran = run("--home", made, "why", "--message", "7", "--all")
    assert ran.code == 0 and "accepted: 5 bytes from <?[2J>" in ran.out
    assert ran.err == (
        f"openqmail: {odd}: has a line about message 7 that is none of ours, and 2 more; passed over\n"
    )
