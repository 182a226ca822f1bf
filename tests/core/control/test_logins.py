"""Logins are judged by users/smtpauth: hashes of other programs, strangers, and hashes that grow stronger."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from openqmail.core.control import Home
from openqmail.core.control.enrolment import apply, change
from openqmail.core.control.hashing import LANES, MEMORY, TIME, hash_password, matches
from openqmail.core.control.logins import DUMMY, Logins
from openqmail.core.control.mechanisms import Served
from openqmail.core.control.smtpauth import parse_smtpauth, with_secrets, written
from openqmail.core.sasl import (
    CRAM_MD5,
    LOGIN,
    PLAIN,
    SCRAM,
    Ask,
    CheckPassword,
    CheckResponse,
    CheckToken,
    Denied,
    Facts,
    Granted,
    Hash,
    Later,
    No,
    Plain,
    Secrets,
    WantSecrets,
    Yes,
    client_mechanism,
    cram_response,
    make_verifier,
    server_mechanism,
)
from openqmail.core.values import TemporaryFailure

PASSWORD = "p\u00e4ss word".encode()

HASHES = {  # of PASSWORD, by openssl passwd, mkpasswd's libcrypt (perl's crypt), and bcrypt
    "md5-crypt": "$1$abcdefgh$k7D63vE3axegCBn62xqCv1",
    "sha256-crypt": "$5$abcdefgh$STy/oKcatpdb24cXJhQFdWwkFCw/opvEQfTEpBHmD0B",
    "sha256-crypt, rounds": "$5$rounds=1000$abcdefgh$oTFBG3Bb2HyYn.i8JKj50x9WXE3nb6KTFW7jDa19Qd/",
    "sha512-crypt": "$6$abcdefgh$2eWsE0Sl3Om5Rl9FWzqBIYcQ41CUZ5v/ymvZ5r35ip8PWPOfp/CotyGwDb."
    "ZxpDggweZibfA3FRsD/Btf.v941",
    "bcrypt": "$2b$05$Tk9ctzHFn/kitwm9nlAnzOxcvexDa3S2Fp84wIklDQLanaSv2zrVG",
    "yescrypt": "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$kYSCgdrYsjfbV6NA92FXVV.hUus2LWqFx5F0UX1VKbB",
}
LONG = "$2b$04$k4PcMzzkHecsS.JtECCpr.PbsmhF3Fw1H7TSQiMBvRszfuGMXCSyS"
"""bcrypt of 72 times x."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    for name in ("control", "users"):
        (tmp_path / name).mkdir()
    if os.geteuid() == 0:
        shutil.chown(tmp_path, "nobody")
    return Home(str(tmp_path))


def store(home: Home, *lines: str) -> Logins:
    path = Path(home.users) / "smtpauth"
    path.write_text("".join(f"{line}\n" for line in lines))
    return Logins(str(path), key=b"key")


def answer(logins: Logins, login: str, password: bytes) -> Yes | No:
    return logins.answer(CheckPassword(login.encode(), password)).answer


@pytest.mark.parametrize("kind", HASHES)
def test_hashes_of_other_programs_are_checked_and_strengthened(home: Home, kind: str) -> None:
    logins = store(home, "bob:x", f"alice:{HASHES[kind]}", "carol:y")
    assert logins.served() == Served(frozenset({PLAIN, LOGIN, CRAM_MD5}), frozenset({PLAIN, LOGIN}))
    assert logins.answer(CheckPassword(b"alice", b"wrong")).answer == No()
    assert logins.answer(CheckPassword(b"alice", HASHES[kind].encode())).answer == No()
    judged = logins.answer(CheckPassword(b"alice", PASSWORD))
    assert judged.answer == Yes(b"alice")
    assert judged.rehash is not None and PASSWORD not in repr(judged).encode()
    apply(home, judged.rehash)
    content = (Path(home.users) / "smtpauth").read_bytes()
    entries, problems = parse_smtpauth(content)
    assert not problems and list(entries) == [b"bob", b"alice", b"carol"]
    assert [one.kind for one in entries[b"alice"].secrets] == ["argon2id", "SCRAM-SHA-256"]
    again = logins.answer(CheckPassword(b"alice", PASSWORD))
    assert again.answer == Yes(b"alice") and again.rehash is None
    assert answer(logins, "alice", b"wrong") == No()
    assert SCRAM in logins.served().some, "what is offered follows the file"


def test_bcrypt_looks_at_72_bytes_as_ever(home: Home) -> None:
    logins = store(home, f"alice:{LONG}")
    assert answer(logins, "alice", b"x" * 72) == answer(logins, "alice", b"x" * 100) == Yes(b"alice")
    assert answer(logins, "alice", b"x" * 71) == No()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there")
@pytest.mark.parametrize("option", ["-1", "-5", "-6"])
def test_openssls_hashes_of_today_are_checked(home: Home, option: str) -> None:
    made = subprocess.run(["openssl", "passwd", option, "s3cret"], capture_output=True, text=True, check=True)
    assert answer(store(home, f"alice:{made.stdout.strip()}"), "alice", b"s3cret") == Yes(b"alice")


def test_a_change_in_between_is_not_undone(home: Home) -> None:
    logins = store(home, f"alice:{HASHES['sha512-crypt']}")
    rehash = logins.answer(CheckPassword(b"alice", PASSWORD)).rehash
    change(home, lambda content: with_secrets(content, b"alice", "{PLAIN}other"))
    apply(home, rehash)
    assert answer(logins, "alice", b"other") == Yes(b"alice")
    assert answer(logins, "alice", PASSWORD) == No()
    change(home, lambda content: with_secrets(content, b"alice", None))
    apply(home, rehash)
    assert answer(logins, "alice", PASSWORD) == No(), "who was removed does not come back"


def test_of_several_hashes_each_counts_and_only_the_weak_one_is_replaced(home: Home) -> None:
    strong = hash_password(b"second")
    logins = store(home, f"alice:{HASHES['sha256-crypt']} {strong.written()}")
    assert logins.answer(CheckPassword(b"alice", b"second")).rehash is None
    judged = logins.answer(CheckPassword(b"alice", PASSWORD))
    assert judged.answer == Yes(b"alice")
    apply(home, judged.rehash)
    assert answer(logins, "alice", b"second") == answer(logins, "alice", PASSWORD) == Yes(b"alice")
    entries, _ = parse_smtpauth((Path(home.users) / "smtpauth").read_bytes())
    assert [one.kind for one in entries[b"alice"].secrets] == ["argon2id"] * 2, (
        "a verifier is for one password"
    )


def test_beside_a_hash_that_cannot_be_checked_the_others_count_and_their_no_is_one(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown() -> None:
        raise TemporaryFailure("this host has no libcrypt")

    logins = store(home, f"alice:{LONG} {hash_password(b'second').written()}", f"bob:{LONG}")
    monkeypatch.setattr("openqmail.core.control.hashing._libcrypt", unknown)
    assert answer(logins, "alice", b"second") == Yes(b"alice")
    judged = logins.answer(CheckPassword(b"alice", b"guess"))
    assert (judged.answer, judged.trouble) == (Later(refused=True), "this host has no libcrypt")
    assert answer(logins, "bob", b"guess") == Later(), "nobody has said no"


def test_a_verifier_or_a_plain_secret_alone_checks_passwords(home: Home) -> None:
    verifier = make_verifier(b"pw", b"0123456789", 4096)
    logins = store(home, f"alice:{verifier.written()}", "bob:pw", f"carol:{Plain(b'p w').written()}")
    for login, password in (("alice", b"pw"), ("bob", b"pw"), ("carol", b"p w")):
        assert answer(logins, login, password) == Yes(login.encode())
        assert answer(logins, login, password + b"x") == No()
        assert answer(logins, login, password[:1]) == No()


def test_the_hash_decides_where_there_is_one(home: Home) -> None:
    logins = store(home, f"alice:{hash_password(b'right').written()} {{PLAIN}}stale")
    assert answer(logins, "alice", b"right") == Yes(b"alice")
    assert answer(logins, "alice", b"stale") == No()


def test_one_password_typed_in_two_ways_is_one(home: Home) -> None:
    made = hash_password("caf\u00e9".encode())
    logins = store(home, f"jos\u00e9:{made.written()}")
    assert answer(logins, "jose\u0301", "cafe\u0301".encode()) == Yes("jos\u00e9".encode())


@pytest.mark.parametrize("known", ["argon2id", "sha512-crypt", "plain", "nobody"])
def test_a_wrong_password_costs_the_same_hash_for_strangers(
    home: Home, known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from openqmail.core.control import logins as module

    lines = {
        "argon2id": hash_password(b"x").written(),
        "sha512-crypt": HASHES["sha512-crypt"],
        "plain": "pw",
    }
    costs = hash_password(b"y")
    logins = store(home, f"bob:{costs.written()}", *(f"alice:{line}" for line in [lines.get(known)] if line))
    checked = []

    def counted(one: Hash, password: bytes) -> bool:
        checked.append(one.kind)
        return matches(one, password)

    monkeypatch.setattr(module, "matches", counted)
    assert answer(logins, "alice", b"guess") == No()
    assert checked.count("argon2id") == 1


def test_the_dummy_costs_what_a_new_hash_costs() -> None:
    costs = f"$argon2id$v=19$m={MEMORY},t={TIME},p={LANES}$"
    assert hash_password(b"x").text.startswith(costs) and DUMMY.text.startswith(costs)


def test_strangers_get_a_verifier_like_the_others_and_always_the_same(home: Home) -> None:
    verifier = make_verifier(b"pw", b"0123456789", 5000)
    logins = store(home, f"alice:{verifier.written()}", "bob:pw")
    assert logins.answer(WantSecrets(b"alice", SCRAM)).answer == Secrets(b"alice", verifier)
    for login in (b"nobody", b"bob"):  # bob has none
        made = logins.answer(WantSecrets(login, SCRAM)).answer
        assert (made.verifier.iterations, len(made.verifier.salt)) == (5000, 10)
        assert made == logins.answer(WantSecrets(login, SCRAM)).answer
        assert (
            made
            == Logins(str(Path(home.users) / "smtpauth"), key=b"key").answer(WantSecrets(login, SCRAM)).answer
        )


def salts(home: Home, count: int = 200) -> list[tuple[int, bytes]]:
    """What another gate tells of nobodies."""
    logins = Logins(str(Path(home.users) / "smtpauth"))
    made = [logins.answer(WantSecrets(b"nobody%d" % one, SCRAM)).answer.verifier for one in range(count)]
    return [(one.iterations, one.salt) for one in made]


def test_a_strangers_salt_outlives_the_process_and_changes_of_the_file(home: Home) -> None:
    store(home, f"alice:{make_verifier(b'pw', b'0' * 16, 5000).written()}")
    change(home, lambda content: with_secrets(content, b"bob", "{PLAIN}pw"))
    first = salts(home)
    assert salts(home) == first
    change(home, lambda content: with_secrets(content, b"carol", "{PLAIN}pw"))
    change(home, lambda content: with_secrets(content, b"bob", None))
    assert salts(home) == first
    content = (Path(home.users) / "smtpauth").read_bytes()
    assert content.count(b"#salts ") == 1
    assert not parse_smtpauth(content)[1]


def test_strangers_look_like_all_that_are_there_each_as_often(home: Home) -> None:
    rare, often = (make_verifier(b"pw", b"0" * 16, count).written() for count in (4096, 5000))
    store(home, "#salts " + "A" * 43 + "=", f"a:{rare}", *(f"b{one}:{often}" for one in range(3)))
    before = salts(home)
    assert 25 <= sum(iterations == 4096 for iterations, _ in before) <= 75, "a quarter of 200"
    store(home, "#salts " + "A" * 43 + "=", f"a:{rare}", *(f"b{one}:{often}" for one in range(4)))
    others = [(one, then) for one, then in zip(before, salts(home), strict=True) if one != then]
    assert all((one[0], then[0]) == (4096, 5000) for one, then in others), "only as many as have to be"
    assert len(others) < 40


def test_cram_md5_is_for_plain_secrets_alone(home: Home) -> None:
    logins = store(home, "bob:pw", f"alice:{hash_password(b'pw').written()}")
    for login, found in ((b"bob", Yes(b"bob")), (b"alice", No()), (b"nobody", No())):
        query = CheckResponse(login, b"<1@x>", cram_response(b"pw", b"<1@x>"))
        assert logins.answer(query).answer == found
        nobodys = CheckResponse(login, b"<1@x>", cram_response(b"nobody's", b"<1@x>"))
        assert logins.answer(nobodys).answer == No()
    assert logins.answer(CheckToken(b"bob", b"pw")).answer == No()


@pytest.mark.parametrize("name", [PLAIN, LOGIN, SCRAM, CRAM_MD5])
def test_whole_exchanges_end_as_the_file_says(home: Home, name: bytes) -> None:
    made = [hash_password(b"pw"), make_verifier(b"pw", b"0123456789", 4096), Plain(b"pw")]
    logins = store(home, f"alice:{written(made)}")

    def exchange(login: bytes, password: bytes) -> Granted | Denied:
        client = client_mechanism([name], login, password, Facts(), in_clear=True)
        server = server_mechanism(name, Facts())
        step = server.start(client.initial())
        while not isinstance(step, Granted | Denied):
            if isinstance(step, Ask):
                step = server.answer(logins.answer(step.query).answer)
            else:
                step = server.respond(client.respond(step.data))
        return step

    assert exchange(b"alice", b"pw") == Granted(b"alice")
    assert exchange(b"alice", b"px") == exchange(b"nobody", b"pw") == Denied(b"wrong")


def test_no_file_means_no_logins_and_one_that_cannot_be_read_means_later(home: Home) -> None:
    logins = Logins(os.path.join(home.users, "smtpauth"))
    assert logins.served() == Served()
    assert answer(logins, "alice", b"pw") == No()
    os.mkdir(os.path.join(home.users, "smtpauth"))
    with pytest.raises(TemporaryFailure, match="smtpauth: cannot be read"):
        logins.served()


def test_a_new_user_is_known_at_once_beside_a_line_that_is_wrong(home: Home) -> None:
    logins = store(home, "alice:pw")
    assert answer(logins, "bob", b"pw") == No()
    change(home, lambda content: content + b"bob:pw\nbad\n")
    assert answer(logins, "bob", b"pw") == Yes(b"bob")
    assert os.stat(os.path.join(home.users, "smtpauth")).st_mode & 0o777 == 0o600


def test_hashes_are_checked_where_nothing_can_be_imported_any_more(home: Home) -> None:
    """As in a gate that is shut in, after `load_late`."""
    program = (
        "import sys, builtins\n"
        "from openqmail.core.control.hashing import load_late, matches\n"
        "from openqmail.core.sasl import parse_secret\n"
        "load_late()\n"
        "loaded = set(sys.modules)\n"
        "good = [matches(parse_secret(one), sys.argv[1].encode()) for one in sys.argv[2:]]\n"
        "print(all(good), sorted(set(sys.modules) - loaded))\n"
    )
    hashes = [*HASHES.values(), hash_password(PASSWORD).text]
    ran = subprocess.run(
        [sys.executable, "-c", program, PASSWORD.decode(), *hashes], capture_output=True, text=True
    )
    assert ran.stdout == "True []\n", ran.stderr
