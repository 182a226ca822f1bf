"""What the port Gate promises of logins; run once more through frames (tests/core/service/frames).

`doors(**options)` gives the authentication itself, its log and clock, and two who ask it.
"""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest

from logins import ALICE, CRAM, CRAM_PASSWORD, PASSWORD, SMTPAUTH, Checks
from openqmail.core import log
from openqmail.core.control.logins import Logins
from openqmail.core.gate import Authentication, BackEnds, Guard, Limits, LocalGate
from openqmail.core.gate import authentication as module
from openqmail.core.gate import back_ends as back_ends_module
from openqmail.core.log import MemoryLog
from openqmail.core.ports import SaslChallenge, SaslClient, SaslDenied, SaslGranted
from openqmail.core.sasl import MECHANISMS, Facts, Token, client_mechanism, cram_response
from openqmail.core.world import SimulatedClock

CLIENT = SaslClient("192.0.2.1", 40001, "submission")
ELSEWHERE = SaslClient("198.51.100.1", 40001, "submission")
FACTS = Facts(True, {"tls-server-end-point": b"binding"}, b"mail.a.example")
FACTS_WITHOUT_BINDING = Facts(True)
WRONG, LATER, LOCKED, MALFORMED = map(SaslDenied, ("wrong", "later", "locked", "malformed"))
UNDECIDED = SaslDenied("undecided")
VERIFIER = SMTPAUTH.partition(b"\n")[0].partition(b":")[2]
HASH = b"$1$abcdefgh$T8qMXnnR6nggSsOYdT31G/"
"""Of "bobs"."""
BOTH, PLUS = frozenset({b"PLAIN", b"LOGIN"}), frozenset({b"SCRAM-SHA-256-PLUS"})


@asynccontextmanager
async def door(path, checks=None, failures=10, programs=(), smtpauth=SMTPAUTH, named=MECHANISMS):
    """An authentication and its gate.  `named`: in control/authmechanisms."""
    (path / "smtpauth").write_bytes(smtpauth)
    alerts, clock, told = [], SimulatedClock(), MemoryLog()
    checks = checks or Checks()
    back_ends = BackEnds(Logins(str(path / "smtpauth"), b"k" * 32), checks, alerts.append)
    lines = dict.fromkeys(("checkpassword", "checkcram", "checktoken"), ())
    lines |= dict.fromkeys(programs, (b"/bin/true",))
    back_ends.reconfigure(SimpleNamespace(**lines, authmechanisms=frozenset(named)))
    made = Authentication(back_ends, Guard(failures), clock, told)
    await made.start()
    gate = LocalGate(Limits({}), clock, made)
    try:
        yield SimpleNamespace(
            made=made, gate=gate, checks=checks, alerts=alerts, clock=clock, log=told, changed=lambda: None
        )
    finally:
        await made.close()


@pytest.fixture
def doors(tmp_path):
    @asynccontextmanager
    async def made(**options):
        async with door(tmp_path, **options) as real:
            yield real, real.gate, real.gate

    return made


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Failures are answered at once; what is kept back is another test's."""
    monkeypatch.setattr("openqmail.core.gate.guard.pause", lambda _: 0.0)


def run(story):
    asyncio.run(asyncio.wait_for(story(), 30))


async def soon(future):
    return await asyncio.wait_for(future, 20)


async def attempt(port, mechanism, login, secret, client=CLIENT, facts=FACTS):
    """A whole one, by our own client of SASL; the last answer.  Who could bind, but does not, denies."""
    known = (
        Facts(facts.tls) if mechanism == b"SCRAM-SHA-256" else facts
    )  # else it would find somebody between
    talk = client_mechanism([mechanism], login, secret, known, in_clear=True)
    exchange = port.sasl(mechanism, client, facts)
    answer = await soon(exchange.respond(talk.initial()))
    while isinstance(answer, SaslChallenge):
        answer = await soon(exchange.respond(talk.respond(answer.data)))
    return answer


async def plain(port, login=ALICE, password=PASSWORD, client=CLIENT):
    return await attempt(port, b"PLAIN", login, password, client)


PASSWORDS = [b"PLAIN", b"LOGIN", b"SCRAM-SHA-256", b"SCRAM-SHA-256-PLUS"]


@pytest.mark.parametrize("mechanism", PASSWORDS)
def test_the_right_password_lets_in_and_a_wrong_one_or_a_stranger_does_not(doors, mechanism):
    async def story():
        async with doors() as (real, port, _):
            assert await attempt(port, mechanism, ALICE, PASSWORD) == SaslGranted(ALICE)
            for login, password in ((ALICE, b"guess"), (b"nobody", PASSWORD)):
                assert await attempt(port, mechanism, login, password) == WRONG
            assert [type(one) for one in real.log.events] == [log.AuthAccepted, *[log.AuthRefused] * 2]

    run(story)


def test_cram_md5_is_for_who_has_a_plain_password(doors):
    async def story():
        async with doors() as (_, port, _):
            assert await attempt(port, b"CRAM-MD5", CRAM, CRAM_PASSWORD) == SaslGranted(CRAM)
            assert await attempt(port, b"CRAM-MD5", CRAM, b"guess") == WRONG
            assert await attempt(port, b"CRAM-MD5", ALICE, PASSWORD) == WRONG

    run(story)


def test_both_who_ask_are_counted_together_and_the_right_password_does_not_help_then(doors):
    async def story():
        async with doors(failures=3) as (real, one, another):
            for port in (one, another, one):
                assert await plain(port, password=b"guess") == WRONG
            assert await plain(another) == LOCKED
            assert await plain(another, client=ELSEWHERE) == SaslGranted(ALICE)
            real.clock.advance(901)
            assert await plain(another) == SaslGranted(ALICE)
            assert [one.why for one in real.log.events if isinstance(one, log.AuthRefused)] == [
                "wrong",
                "wrong",
                "wrong",
                "locked",
            ]

    run(story)


def test_one_wrong_password_by_each_mechanism_in_turn_is_one_failure(doors):
    """As Python's smtplib says it."""

    async def story():
        async with doors(failures=2) as (_, port, _):
            for mechanism in (b"CRAM-MD5", b"PLAIN", b"LOGIN"):
                assert await attempt(port, mechanism, CRAM, b"guess") == WRONG
            assert await attempt(port, b"PLAIN", CRAM, b"guess") == WRONG  # by the same once more
            assert await attempt(port, b"PLAIN", CRAM, CRAM_PASSWORD) == LOCKED

    run(story)


@pytest.mark.parametrize(
    "guesses",
    [
        [(b"PLAIN", b"guess", 1), (b"PLAIN", b"guess", 1)],
        [(b"PLAIN", b"guess", 1), (b"LOGIN", b"another", 1)],
        [(b"CRAM-MD5", b"guess", 1), (b"PLAIN", b"another", 1)],
        [(b"CRAM-MD5", b"guess", 1), (b"PLAIN", b"guess", 2)],
        [(b"SCRAM-SHA-256", b"guess", 1), (b"PLAIN", b"guess", 1)],
    ],
)
def test_whoever_guesses_twice_has_failed_twice(doors, guesses):
    async def story():
        async with doors(failures=2) as (_, port, _):
            for mechanism, password, connection in guesses:
                client = SaslClient(CLIENT.address, connection, CLIENT.service)
                assert await attempt(port, mechanism, CRAM, password, client) == WRONG
            assert await attempt(port, b"PLAIN", CRAM, CRAM_PASSWORD) == LOCKED

    run(story)


def test_the_guess_of_another_login_is_another(doors):
    async def story():
        async with doors(failures=2) as (_, port, _):
            assert await attempt(port, b"PLAIN", CRAM, b"guess") == WRONG
            assert await attempt(port, b"LOGIN", ALICE, b"guess") == WRONG
            assert await plain(port) == LOCKED

    run(story)


def test_of_very_many_guesses_only_the_latest_are_remembered(doors, monkeypatch):
    monkeypatch.setattr("openqmail.core.gate.guesses.MOST", 2)

    async def story():
        async with doors(failures=100) as (real, port, _):
            for login in (b"a", b"b", b"c"):
                await attempt(port, b"PLAIN", login, b"guess")
            assert len(real.made.guesses._last) == 2

    run(story)


def test_a_login_is_the_same_for_lock_outs_however_it_is_spelled(doors):
    """Fullwidth letters and capitals: as many failures from many networks as one spelling may have."""
    spellings = [b"alice", b"ALICE", b"aLiCe", "\uff41lice".encode(), "al\u00adice".encode()]

    async def story():
        async with doors(failures=1) as (_, port, _):
            for at in range(10):
                client = SaslClient(f"203.0.{at}.1", 40001, "submission")
                assert await plain(port, spellings[at % len(spellings)], b"guess", client) == WRONG
            assert await plain(port, client=ELSEWHERE) == LOCKED

    run(story)


@pytest.mark.parametrize("mechanism", PASSWORDS)
def test_guesses_side_by_side_are_no_more_than_one_after_the_other(doors, mechanism):
    async def story():
        async with doors(failures=3) as (_, port, _):
            passwords = [b"guess %d" % number for number in range(20)] + [PASSWORD]
            answers = await asyncio.gather(
                *(attempt(port, mechanism, ALICE, password) for password in passwords),
            )
            assert answers[-1] == LOCKED

    run(story)


@pytest.mark.parametrize("mechanism", PASSWORDS)
def test_what_was_asked_before_a_lock_out_does_not_tell_which_guess_was_right(doors, mechanism):
    """Side by side, the right one in the midst: all that come after the lock-out are answered alike."""

    async def story():
        async with doors(failures=3) as (_, port, _):
            passwords = [b"guess %d" % number for number in range(20)]
            passwords[10] = PASSWORD
            answers = await asyncio.gather(
                *(attempt(port, mechanism, ALICE, password) for password in passwords),
            )
            assert answers.count(WRONG) == 3
            assert answers[10] == LOCKED
            assert answers.count(LOCKED) == 17

    run(story)


def test_a_proof_that_comes_to_a_lock_out_is_not_answered_by_the_servers(doors):
    """SCRAM tells who is right before it lets in."""

    async def story():
        async with doors(failures=1) as (_, port, _):
            proofs = []
            for password in (PASSWORD, b"guess"):
                talk = client_mechanism([b"SCRAM-SHA-256"], ALICE, password, Facts(True))
                exchange = port.sasl(b"SCRAM-SHA-256", CLIENT, FACTS)
                salt = await soon(exchange.respond(talk.initial()))
                proofs.append((exchange, talk.respond(salt.data)))
            assert await plain(port, password=b"another guess") == WRONG
            assert [await soon(exchange.respond(proof)) for exchange, proof in proofs] == [LOCKED, LOCKED]

    run(story)


def test_who_hangs_up_before_the_answer_is_counted(doors):
    async def story():
        async with doors(failures=3) as (real, port, _):
            for _ in range(3):
                exchange = port.sasl(b"PLAIN", CLIENT, FACTS)
                exchange.respond(b"\0alice\0guess")
                await asyncio.sleep(0)
                exchange.abort()
            while sum(isinstance(one, log.AuthRefused) for one in real.log.events) < 3:
                await asyncio.sleep(0.001)
            assert await plain(port) == LOCKED

    run(story)


SALTED = (b"SCRAM-SHA-256", b"n,,n=alice,r=abcdefgh")


@pytest.mark.parametrize("end", ["abort", "malformed", "time"])
def test_who_has_a_salt_told_and_goes_is_counted(doors, monkeypatch, end):
    monkeypatch.setattr(module, "SECONDS", 0.05 if end == "time" else 60)

    async def story():
        async with doors(failures=3) as (real, port, _):
            for number in range(3):
                exchange = port.sasl(SALTED[0], CLIENT, FACTS_WITHOUT_BINDING)
                assert isinstance(await soon(exchange.respond(SALTED[1])), SaslChallenge)
                if end == "abort":
                    exchange.abort()
                elif end == "malformed":
                    assert await soon(exchange.respond(b"x")) == MALFORMED
                while len(real.log.events) <= number:
                    await asyncio.sleep(0.001)
            assert await plain(port) == LOCKED
            assert [one.why for one in real.log.events] == ["abandoned"] * 3 + ["locked"]

    run(story)


def test_an_exchange_that_ends_well_or_tells_no_salt_is_not_counted(doors):
    async def story():
        async with doors(failures=1) as (_, port, _):
            for mechanism, said in ((b"LOGIN", None), (b"CRAM-MD5", None), (b"SCRAM-SHA-256", None)):
                exchange = port.sasl(mechanism, CLIENT, FACTS)
                assert isinstance(await soon(exchange.respond(said)), SaslChallenge)
                exchange.abort()
            for _ in range(3):
                assert await attempt(port, b"SCRAM-SHA-256", ALICE, PASSWORD) == SaslGranted(ALICE)

    run(story)


def test_what_is_no_sasl_is_malformed_and_not_counted(doors):
    async def story():
        async with doors(failures=1) as (real, port, _):
            for mechanism, said in (
                (b"PLAIN", b"no NUL"),
                (b"PLAIN", b"x" * 9217),
                (b"CRAM-MD5", b"initial"),
                (b"SCRAM-SHA-256", b"n,,x"),
                (b"GSSAPI", b"x"),
                (b"OAUTHBEARER", b"nobody serves it"),
            ):
                assert await soon(port.sasl(mechanism, CLIENT, FACTS).respond(said)) == MALFORMED
            assert real.log.events == []
            assert await plain(port) == SaslGranted(ALICE)

    run(story)


def test_an_exchange_that_is_over_or_asked_twice_says_malformed(doors):
    async def story():
        async with doors() as (_, port, _):
            exchange = port.sasl(b"PLAIN", CLIENT, FACTS)
            first, second = exchange.respond(b"\0alice\0" + PASSWORD), exchange.respond(b"x")
            assert await soon(second) == MALFORMED
            assert await soon(first) == SaslGranted(ALICE)
            assert await soon(exchange.respond(b"x")) == MALFORMED
            exchange.abort()

    run(story)


def test_a_challenge_that_is_given_up_leaves_room_for_the_next(doors, monkeypatch):
    monkeypatch.setattr(module, "OF_NETWORK", 2)

    async def story():
        async with doors() as (_, port, _):
            for _ in range(5):
                open_ones = [port.sasl(b"LOGIN", CLIENT, FACTS) for _ in range(2)]
                for one in open_ones:
                    assert isinstance(await soon(one.respond(None)), SaslChallenge)
                assert await soon(port.sasl(b"LOGIN", CLIENT, FACTS).respond(None)) == LATER
                for one in open_ones:
                    one.abort()
            assert await plain(port) == SaslGranted(ALICE)

    run(story)


def test_an_attempt_that_takes_too_long_is_put_off(doors, monkeypatch):
    monkeypatch.setattr(module, "SECONDS", 0.01)

    async def story():
        async with doors() as (real, port, _):
            exchange = port.sasl(b"LOGIN", CLIENT, FACTS)
            assert isinstance(await soon(exchange.respond(None)), SaslChallenge)
            while real.made._open:
                await asyncio.sleep(0.001)
            assert isinstance(await soon(exchange.respond(b"alice")), SaslDenied)

    run(story)


def test_mechanisms_are_those_that_somebody_can_use_and_change_with_the_file(doors, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LOOK", 0.001)

    async def until(port, names):
        while port.mechanisms != names:
            await asyncio.sleep(0.001)

    async def story():
        async with doors(smtpauth=b"") as (real, one, another):
            real.made.changed = real.changed
            await until(one, frozenset())
            (tmp_path / "new").write_bytes(b"carol:{PLAIN}carols\n")
            (tmp_path / "new").rename(tmp_path / "smtpauth")
            for port in (one, another):
                await until(port, {b"PLAIN", b"LOGIN", b"CRAM-MD5"})
            assert await plain(one, CRAM, CRAM_PASSWORD) == SaslGranted(CRAM)

    run(story)


@pytest.mark.parametrize(
    ("lines", "programs", "names"),
    [
        ([VERIFIER, VERIFIER], [], {*PLUS, b"SCRAM-SHA-256", *BOTH}),
        ([VERIFIER, HASH], [], BOTH),
        ([VERIFIER, b"{PLAIN}x"], [], BOTH),
        ([b"{PLAIN}x", b"{PLAIN}y"], [], {b"CRAM-MD5", *BOTH}),
        ([VERIFIER], ["checkpassword"], BOTH),
        ([b"{PLAIN}x"], ["checkpassword"], BOTH),
        ([b"{PLAIN}x"], ["checkpassword", "checkcram"], {b"CRAM-MD5", *BOTH}),
        ([VERIFIER], ["checkcram"], BOTH),
        ([VERIFIER], ["checktoken"], {*PLUS, b"SCRAM-SHA-256", *BOTH, b"OAUTHBEARER", b"XOAUTH2"}),
    ],
)
def test_a_mechanism_that_some_cannot_use_is_offered_to_nobody(doors, lines, programs, names):
    """Their clients would take it for the best, and be refused with the right password."""
    smtpauth = b"".join(b"login%d:%b\n" % line for line in enumerate(lines))

    async def story():
        async with doors(smtpauth=smtpauth, programs=programs, named=()) as (_, port, _):
            assert port.mechanisms == names

    run(story)


def test_an_older_hash_that_has_become_a_stronger_one_brings_scram_for_all(doors, tmp_path, monkeypatch):
    """As a child of the spawner does it, after a login by PLAIN."""
    monkeypatch.setattr(module, "LOOK", 0.001)
    bob = b"bob:%b\n" % HASH

    async def story():
        async with doors(smtpauth=SMTPAUTH.splitlines(True)[0] + bob, named=()) as (real, port, _):
            real.made.changed = real.changed
            assert port.mechanisms == BOTH
            assert await attempt(port, b"PLAIN", b"bob", b"bobs") == SaslGranted(b"bob")
            [rehash] = real.checks.strengthened
            (tmp_path / "new").write_bytes(SMTPAUTH.splitlines(True)[0] + b"bob:%b\n" % rehash.new.encode())
            (tmp_path / "new").rename(tmp_path / "smtpauth")
            while b"SCRAM-SHA-256" not in port.mechanisms:
                await asyncio.sleep(0.001)
            assert await attempt(port, b"SCRAM-SHA-256", b"bob", b"bobs") == SaslGranted(b"bob")

    run(story)


def test_what_is_named_is_offered_as_far_as_somebody_can_use_it(doors):
    async def story():
        named = [b"CRAM-MD5", b"LOGIN", b"XOAUTH2"]
        async with doors(named=named) as (_, port, _):
            assert port.mechanisms == {b"CRAM-MD5", b"LOGIN"}
            assert await attempt(port, b"CRAM-MD5", CRAM, CRAM_PASSWORD) == SaslGranted(CRAM)
            assert await plain(port) == MALFORMED, "what is not offered is not taken"

    run(story)


@pytest.mark.parametrize(
    ("named", "kind"), [([b"SCRAM-SHA-256"], SaslChallenge), ([b"SCRAM-SHA-256", *PLUS], SaslDenied)]
)
def test_who_could_bind_has_nobody_in_between_where_plus_is_left_out(doors, named, kind):
    async def story():
        async with doors(named=named) as (_, port, _):
            exchange = port.sasl(b"SCRAM-SHA-256", CLIENT, FACTS)
            assert isinstance(await soon(exchange.respond(b"y,,n=alice,r=abcdefgh")), kind)

    run(story)


# --- programs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "answer"),
    [(0, SaslGranted(b"bob")), (1, WRONG), (2, LATER), (111, LATER), (99, LATER), (None, LATER)],
)
def test_a_programs_exit_is_the_answer(doors, code, answer):
    async def story():
        checks = Checks({b"bob": code})
        async with doors(programs=["checkpassword"], checks=checks, smtpauth=b"") as (_, port, _):
            assert await plain(port, b"bob", b"a password") == answer
            [(program, told, client)] = checks.asked
            login, password, moment, end = told.split(b"\0")
            assert (program, login, password, end) == ("checkpassword", b"bob", b"a password", b"")
            assert moment[:1] == b"Y"
            assert client == CLIENT.address

    run(story)


def test_a_program_for_cram_gets_the_response_and_the_challenge_behind_it(doors):
    async def story():
        checks = Checks({b"bob": 0})
        async with doors(programs=["checkcram"], checks=checks, smtpauth=b"") as (real, port, _):
            assert real.gate.mechanisms == {b"CRAM-MD5"}
            assert await attempt(port, b"CRAM-MD5", b"bob", b"key") == SaslGranted(b"bob")
            [(program, told, _)] = checks.asked
            login, response, challenge, end = told.split(b"\0")
            assert (program, login, end) == ("checkcram", b"bob", b"")
            assert cram_response(b"key", challenge) == response

    run(story)


@pytest.mark.parametrize("mechanism", [b"OAUTHBEARER", b"XOAUTH2"])
def test_a_program_for_tokens_gets_a_long_one(doors, mechanism):
    async def story():
        checks = Checks({b"bob": 0})
        async with doors(programs=["checktoken"], checks=checks, smtpauth=b"") as (real, port, _):
            assert real.gate.mechanisms == {b"OAUTHBEARER", b"XOAUTH2"}
            assert await attempt(port, mechanism, b"bob", Token(b"t" * 4000)) == SaslGranted(b"bob")
            assert checks.asked[0][1].startswith(b"bob\0" + b"t" * 4000 + b"\0Y")
            exchange = port.sasl(mechanism, CLIENT, FACTS)
            said = (
                b"n,a=eve,\1auth=Bearer x\1\1"
                if mechanism == b"OAUTHBEARER"
                else b"user=eve\1auth=Bearer x\1\1"
            )
            assert isinstance(await soon(exchange.respond(said)), SaslChallenge)
            assert await soon(exchange.respond(b"\1")) == WRONG

    run(story)


def test_a_program_is_asked_only_where_the_file_says_no(doors):
    async def story():
        checks = Checks({b"alice": 0})
        async with doors(programs=["checkpassword"], checks=checks) as (_, port, _):
            assert await plain(port) == SaslGranted(ALICE)
            assert checks.asked == []
            assert await plain(port, password=b"another of hers") == SaslGranted(ALICE)

    run(story)


@pytest.mark.parametrize("mechanism", [b"PLAIN", b"LOGIN", b"CRAM-MD5", b"SCRAM-SHA-256"])
def test_a_strangers_login_is_asked_about_as_a_known_one(doors, mechanism):
    async def story():
        checks = Checks()
        async with doors(programs=["checkpassword", "checkcram"], checks=checks) as (_, port, _):
            asked = []
            for login in (ALICE, CRAM, b"stranger"):
                assert await attempt(port, mechanism, login, b"guess") == WRONG
                asked.append([program for program, told, _ in checks.asked if told.startswith(login + b"\0")])
            assert asked[0] == asked[1] == asked[2]

    run(story)


def test_what_no_checkpassword_program_could_read_is_wrong(doors):
    async def story():
        checks = Checks({b"b" * 255: 0})
        async with doors(programs=["checkpassword"], checks=checks) as (_, port, _):
            assert await plain(port, b"b" * 255, b"p" * 255) == WRONG
            assert checks.asked == []

    run(story)


def test_with_too_many_that_wait_the_next_is_put_off(doors, monkeypatch):
    monkeypatch.setattr(back_ends_module, "WAITING", 1)

    async def story():
        checks = Checks()
        checks.hold = True
        async with doors(programs=["checkpassword"], checks=checks) as (_, port, _):
            first = asyncio.ensure_future(plain(port, b"bob"))
            while not checks.held:
                await asyncio.sleep(0)
            assert await plain(port) == LATER
            checks.held[0].set_result(0)
            assert await first == SaslGranted(b"bob")

    run(story)


def test_a_program_that_cannot_tell_is_told_of(doors):
    async def story():
        async with doors(programs=["checkpassword"], checks=Checks({b"bob": 111})) as (real, port, _):
            assert await plain(port, b"bob") == UNDECIDED
            [alert] = real.alerts
            assert "control/checkpassword" in alert
            assert "111" in alert

    run(story)


def test_a_programs_no_is_counted_where_the_file_cannot_be_read(doors, tmp_path):
    async def story():
        async with doors(programs=["checkpassword"], failures=3) as (real, port, _):
            (tmp_path / "smtpauth").unlink()
            (tmp_path / "smtpauth").mkdir()
            for _ in range(3):
                assert await plain(port, password=b"guess") == UNDECIDED
            real.checks.answers[ALICE] = 0
            assert await plain(port) == LOCKED
            assert await plain(port, client=ELSEWHERE) == SaslGranted(ALICE)
            assert [one.why for one in real.log.events[:4]] == ["undecided"] * 3 + ["locked"]

    run(story)


def test_a_no_of_the_file_is_counted_where_the_program_cannot_tell(doors):
    async def story():
        checks = Checks({ALICE: 111})
        async with doors(programs=["checkpassword"], checks=checks, failures=3) as (_, port, _):
            for _ in range(3):
                assert await plain(port, password=b"guess") == UNDECIDED
            assert await plain(port) == LOCKED

    run(story)


@pytest.mark.parametrize(
    "options",
    [
        {"smtpauth": b"", "mechanism": b"PLAIN", "program": "checkpassword"},
        {"mechanism": b"OAUTHBEARER", "program": "checktoken"},
    ],
)
def test_where_nobody_could_tell_nothing_is_counted(doors, options):
    async def story():
        mechanism, program = options.pop("mechanism"), options.pop("program")
        secret = Token(b"t") if program == "checktoken" else b"right"
        checks = Checks({b"bob": 111})
        async with doors(programs=[program], checks=checks, failures=1, **options) as (_, port, _):
            for _ in range(3):
                assert await attempt(port, mechanism, b"bob", secret) == LATER
            checks.answers[b"bob"] = 0
            assert await attempt(port, mechanism, b"bob", secret) == SaslGranted(b"bob")

    run(story)


# --- secrets --------------------------------------------------------------------------------------


def test_no_secret_is_in_the_log_or_in_what_an_error_could_show(doors):
    async def story():
        async with doors(programs=["checkpassword"]) as (real, port, _):
            await plain(port)
            await plain(port, password=b"a wrong guess")
            shown = repr(real.log.events).encode() + b"".join(one.line() for one in real.log.events)
            assert PASSWORD not in shown
            assert b"a wrong guess" not in shown

    run(story)
