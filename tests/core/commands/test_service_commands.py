"""`status`, `queue` and lock-outs: against a socket that answers as a service does, and with none at all."""

import asyncio
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from openqmail.core.__about__ import FOLDER, __version__
from openqmail.core.commands import client
from openqmail.core.control import Home
from openqmail.core.queue import LocalStore
from openqmail.core.values import Envelope, Recipient
from openqmail.core.world import PosixDisk, SystemClock

Run = Callable[..., Any]

STATUS = {
    "v": 1, "state": "serving", "pid": 4711, "version": "0.1.0", "since": 1_700_000_000,
    "listen": [{"service": "smtp", "address": "127.0.0.1:2525"}],
    "queue": {"messages": 2, "recipients": 3, "deferred": 1, "held": 0, "bytes": 5000},
    "running": {"local": 1, "remote": 2},
    "processes": [{"name": "mta", "pid": 4711, "uid": 1, "generation": 1, "rss": 30_000_000, "work": 3}],
    "refusals": 0, "refusal": "", "settings": 1_700_000_000, "program": "/opt/openqmail/core",
}  # fmt: skip

MESSAGE = {
    "id": 17, "key": "00", "born": 1_700_000_000, "size": 2048, "sender": "a\x1b[2J@b.example", "uid": 0,
    "state": "deferred",
    "recipients": [
        {"address": "x@y.example", "channel": "remote", "state": "todo", "attempts": 3,
         "next": 1_700_000_400, "last": "refused\n"},
        {"address": "z@a.example", "channel": "local", "state": "done", "attempts": 1,
         "next": None, "last": None},
    ],
}  # fmt: skip


@contextmanager
def answering(made: Path, answers: dict[str, bytes]) -> Iterator[list[dict[str, Any]]]:
    """A Unix server at run/admin that sends these bytes for what is asked."""
    asked: list[dict[str, Any]] = []
    path = made / "run" / "admin"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        owner = Home(str(made)).owner
        os.chown(path, *owner)
        listening.listen()

        def serve() -> None:
            while True:
                connection, _ = listening.accept()
                with connection, connection.makefile("rb") as lines:
                    request = json.loads(lines.readline() or b"{}")
                    if not request:
                        return
                    asked.append(request)
                    connection.sendall(answers.get(request["ask"], b""))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield asked
        finally:
            with socket.socket(socket.AF_UNIX) as last:
                last.connect(str(path))
            thread.join()
            path.unlink()


def line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


def test_status_while_it_serves(run: Run, made: Path) -> None:
    with answering(made, {"status": line(STATUS)}) as asked:
        ran = run("--home", made, "status", "--json")
        assert (ran.code, json.loads(ran.out)) == (0, STATUS)
        ran = run("--home", made, "status")
        assert ran.code == 0
        for wanted in (
            "serving, process 4711",
            "smtp 127.0.0.1:2525",
            "2 messages, 3 recipients waiting, 1 deferred",
        ):
            assert wanted in ran.out
        assert asked[0] == {"v": 1, "ask": "status"}


def test_status_says_what_cannot_be_read_and_that_new_mail_is_refused(run: Run, made: Path) -> None:
    with answering(made, {"status": line(STATUS)}):
        assert "unreadable" not in (told := run("--home", made, "status").out) and "refused" not in told
    trouble = STATUS | {"queue": {**STATUS["queue"], "unreadable": 2, "full": True}}
    with answering(made, {"status": line(trouble)}):
        told = run("--home", made, "status").out
    assert "unreadable 2 messages" in told and "new mail is refused (452)" in told


def test_status_while_it_drains_is_not_serving(run: Run, made: Path) -> None:
    with answering(made, {"status": line(STATUS | {"state": "draining"})}):
        assert run("--home", made, "status").code == 100


def test_what_a_process_tells_cannot_speak_to_the_terminal(run: Run, made: Path) -> None:
    with answering(made, {"status": line(STATUS | {"state": "\x1b]0;mine\x07"})}):
        told = run("--home", made, "status").out
    assert "]0;mine" in told
    assert told.replace("\n", "").isprintable()


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b"[]\n", b'{"v":1,"state":"serv'])
def test_status_that_cannot_be_told_is_111(run: Run, made: Path, answer: bytes) -> None:
    with answering(made, {"status": answer}):
        ran = run("--home", made, "status")
    assert (ran.code, ran.out) == (111, "")
    assert "run/admin: the answer" in ran.err


def test_status_of_a_stopped_service(run: Run, made: Path) -> None:
    ran = run("--home", made, "status")
    assert (ran.code, ran.out) == (100, f"{made}: stopped\nnext: openqmail --home {made} run\n")
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(made / "run" / "admin"))
    os.chown(made / "run" / "admin", *Home(str(made)).owner)
    left.close()  # a socket file that a killed service left behind
    ran = run("--home", made, "status", "--json")
    assert ran.code == 100
    found = json.loads(ran.out)
    assert found["state"] == "stopped"
    assert found.keys() == STATUS.keys()


def test_queue_list(run: Run, made: Path) -> None:
    with answering(made, {"list": line(MESSAGE) + line(MESSAGE | {"id": 18}) + line({"ok": True})}):
        ran = run("--home", made, "queue", "list", "--json")
        assert [json.loads(one)["id"] for one in ran.out.splitlines()] == [17, 18]
        ran = run("--home", made, "queue")
    assert ran.code == 0
    assert "\x1b" not in ran.out, "nothing that a terminal would obey"
    assert "#17  deferred  2.0 KiB  14 Nov 2023 22:13:20 UTC  from <a?[2J@b.example>" in ran.out
    assert "x@y.example  (3 attempts, next when the deliveries under way have ended)" in ran.out
    assert ran.out.endswith("queue: 2 messages, 2 recipients waiting, 2 deferred, 4.0 KiB\n")


def test_json_may_stand_before_the_word_or_without_one(run: Run, made: Path) -> None:
    answers = {"list": line(MESSAGE) + line({"ok": True}), "flush": line({"ok": True, "messages": 3})}
    with answering(made, answers):
        for words in (["--json"], ["--json", "list"], ["list", "--json"]):
            assert json.loads(run("--home", made, "queue", *words).out) == MESSAGE
        assert json.loads(run("--home", made, "queue", "--json", "flush").out) == {"messages": 3}


def test_a_json_list_is_passed_on_as_it_is(run: Run, made: Path) -> None:
    """Nothing is parsed on the way: a long queue is listed as fast as the service tells it."""
    odd = b'{"id" : 17, "more":"than we know", "sender":"caf\\u00e9"}\n'
    with answering(made, {"list": odd + line({"ok": True})}):
        ran = run("--home", made, "queue", "list", "--json")
    assert (ran.code, ran.out.encode()) == (0, odd)


@pytest.mark.parametrize(
    ("acted", "code", "out", "err"),
    [
        ({"done": [17, 18]}, 0, "2 messages held\n", ""),
        (
            {"done": [17], "missed": [{"number": 18, "why": "is\x1b held already"}]},
            0,
            "1 message held\n",
            "openqmail: message 18 is? held already\n",
        ),
        ({"missed": [{"number": 17, "why": "is not there"}]}, 1, "", "openqmail: message 17 is not there\n"),
        (
            {"done": [17], "later": [18]},
            111,
            "1 message held\n",
            "openqmail: message 18 is being delivered just now; it will be done when that has ended\n",
        ),
    ],
)
def test_what_a_verb_did(run: Run, made: Path, acted: Any, code: int, out: str, err: str) -> None:
    with answering(made, {"hold": line({"ok": True, **acted})}) as asked:
        assert run("--home", made, "queue", "hold", 17, 18, "--reason", "odd") == (code, out, err)
    assert asked[0] == {"v": 1, "ask": "hold", "numbers": [17, 18], "keys": [], "reason": "odd"}


@pytest.mark.parametrize("answer", [b"", b"nonsense\n", b'{"ok":true,"done":17}\n', b'{"ok":tr'])
def test_a_verb_whose_answer_is_not_understood_is_111(run: Run, made: Path, answer: bytes) -> None:
    with answering(made, {"retry": answer}):
        ran = run("--home", made, "queue", "retry", 17)
    assert (ran.code, ran.out) == (111, "")
    assert "run/admin: the answer" in ran.err


@pytest.mark.parametrize("end", [b"", line({"ok": False, "error": "cannot be read"})])
def test_a_list_that_is_cut_off_does_not_look_whole(run: Run, made: Path, end: bytes) -> None:
    with answering(made, {"list": line(MESSAGE) + end}):
        assert run("--home", made, "queue", "list", "--json").code != 0


def test_a_message_that_is_cut_off_does_not_look_whole(run: Run, made: Path) -> None:
    with answering(made, {"show": line({"ok": True, "size": 100}) + b"Subject: x\n"}):
        assert run("--home", made, "queue", "show", 17).code == 111


def test_queue_show_and_flush(run: Run, made: Path) -> None:
    content = b"Subject: x\n\n\xff\x00body without an end"
    with answering(
        made,
        {
            "show": line({"ok": True, "size": len(content)}) + content,
            "flush": line({"ok": True, "messages": 3}),
        },
    ) as asked:
        ran = run("--home", made, "queue", "show", 17)
        assert (ran.code, ran.out) == (0, content.decode("utf-8", "backslashreplace"))
        assert asked[0] == {"v": 1, "ask": "show", "number": 17}
        ran = run("--home", made, "queue", "flush")
        assert (ran.code, ran.out) == (0, "3 messages that waited are due now\n")


def test_what_is_not_there_is_1_and_the_rest_is_shown(run: Run, made: Path) -> None:
    with answering(made, {"show": line({"ok": False, "error": "no message 9 in the queue"})}):
        ran = run("--home", made, "queue", "show", 9, 10)
    assert ran.code == 1
    assert "no message 9" in ran.err
    assert "no message 10" in ran.err


def test_the_queue_of_a_stopped_service(run: Run, made: Path) -> None:
    large = b"Subject: large\n\n" + b"x" * 70 + b"\n" * 200_000
    asyncio.run(_fill(made, [b"Subject: small\n\nbody\n", large]))
    ran = run("--home", made, "queue", "list", "--json")
    found = [json.loads(one) for one in ran.out.splitlines()]
    assert [(one["sender"], one["state"]) for one in found] == [
        ("s0@x.example", "new"),
        ("s1@x.example", "new"),
    ]
    assert [one["channel"] for one in found[0]["recipients"]] == ["local", "remote"]
    assert run("--home", made, "queue", "show", found[0]["id"]).out == "Subject: small\n\nbody\n"
    assert run("--home", made, "queue", "show", found[1]["id"]).out.encode() == large
    assert run("--home", made, "queue", "show", 999).code == 1


async def _fill(made: Path, bodies: list[bytes]) -> None:
    store = LocalStore(
        PosixDisk(),
        SystemClock(),
        os.fsencode(made / "queue"),
        lambda error: None,
        route=lambda address: ("local", address),
    )
    store.open()
    for number, body in enumerate(bodies):
        recipients = (Recipient(b"alice@a.example"), Recipient(b"x@elsewhere.example"))
        envelope = Envelope(b"s%d@x.example" % number, recipients)
        if len(body) < 100_000:
            await store.submit(envelope, body)
            continue
        large = store.large()
        await large.write(body)
        await store.submit(envelope, large)
    await store.close()
    for folder, names, files in os.walk(made / "queue"):
        for name in [*names, *files]:
            os.chown(os.path.join(folder, name), *Home(str(made)).owner)


@pytest.mark.parametrize("differs", [{"version": "0.0.9"}, {"program": "/opt/old/openqmail/core"}])
def test_an_upgrade_to_another_program_than_the_one_that_asks_is_no_success(
    run: Run, made: Path, monkeypatch: pytest.MonkeyPatch, differs: dict[str, str]
) -> None:
    serves = {"name": "smtpd", "pid": 1, "uid": 1, "rss": 1, "work": 0}
    this = {**STATUS, "version": __version__, "program": FOLDER}
    told = [{**this, "processes": [{**serves, "generation": 1}]}]
    (made / "run" / "lock").write_text("4711\n")
    monkeypatch.setattr(os, "kill", lambda pid, number: signalled.append((pid, number)))
    monkeypatch.setattr(client, "status", lambda home: told[len(signalled)])
    for more, code in (({}, 0), (differs, 100)):
        signalled: list[tuple[int, int]] = []
        told[1:] = [{**this, **more, "processes": [{**serves, "generation": 2}]}]
        ran = run("--home", made, "upgrade")
        assert (ran.code, signalled) == (code, [(4711, signal.SIGUSR2)])
    (different,) = differs.values()
    assert different in ran.err and f"{__version__} in {FOLDER}" in ran.err
    assert "stop it and start it" in ran.err


LOCKED = {
    "ok": True,
    "locked": [
        {"network": "192.0.2.0/24", "login": "", "failures": 12, "seconds": 841},
        {"network": "", "login": "bob\x1b[2J", "failures": 100, "seconds": 59},
        {"network": "2001:db8::/64", "login": "alice", "failures": 10, "seconds": 60},
    ],
    "more": 4,
}


def test_who_is_locked_out_is_told(run: Run, made: Path) -> None:
    with answering(made, {"locked": line(LOCKED)}):
        assert run("--home", made, "user", "locked").out.splitlines() == [
            "network 192.0.2.0/24: 12 failures, 15 min left",
            "login bob?[2J, where it never was before: 100 failures, 1 min left",
            "login alice, network 2001:db8::/64: 10 failures, 1 min left",
            "and 4 more",
        ]
        ran = run("--home", made, "user", "locked", "--json")
        assert [json.loads(one) for one in ran.out.splitlines()] == LOCKED["locked"]
    with answering(made, {"locked": line({"ok": True, "locked": [], "more": 0})}):
        assert run("--home", made, "user", "locked") == (0, "nobody is locked out\n", "")
        assert run("--home", made, "user", "locked", "--json") == (0, "", "")


def test_who_is_unlocked_is_told_and_who_was_not_locked(run: Run, made: Path) -> None:
    with answering(made, {"unlock": line({"ok": True, "lifted": [2, 0]})}) as asked:
        ran = run("--home", made, "user", "unlock", "alice", "192.0.2.9")
        assert ran == (
            0,
            "alice may try again\n",
            "openqmail: '192.0.2.9' is not locked out; see 'openqmail user locked'\n",
        )
        assert asked == [{"v": 1, "ask": "unlock", "names": ["alice", "192.0.2.9"]}]
    with answering(made, {"unlock": line({"ok": True, "lifted": [0]})}):
        assert run("--home", made, "user", "unlock", "alice").code == 1


@pytest.mark.parametrize("answer", [b'{"ok":true}\n', b'{"ok":true,"locked":[1],"lifted":["x"]}\n', b""])
def test_lock_outs_of_a_service_that_is_not_understood_are_put_off(
    run: Run, made: Path, answer: bytes
) -> None:
    with answering(made, {"locked": answer, "unlock": answer}):
        assert run("--home", made, "user", "locked").code == 111
        assert run("--home", made, "user", "unlock", "alice").code == 111


def test_lock_outs_are_those_of_a_running_service(run: Run, made: Path) -> None:
    ran = run("--home", made, "user", "locked")
    assert ran.code and "the service is stopped" in ran.err
