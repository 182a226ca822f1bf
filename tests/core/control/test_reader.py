"""Control files: their values, their defaults, and every mistake with file, line and remedy."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from openqmail.core.control import (
    DEFINITIONS,
    Home,
    Listener,
    Resolver,
    Route,
    Settings,
    check,
    extensions,
    read_settings,
)
from openqmail.core.control.assign import compile_cdb
from openqmail.core.control.cdb import Cdb
from openqmail.core.control.text import ControlText
from openqmail.core.values import ControlError

Make = Callable[..., Home]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A home with these control files, on top of a `me`."""

    def make(**files: str | bytes) -> Home:
        folder = tmp_path / "control"
        folder.mkdir(exist_ok=True)
        for name, content in {"me": "mail.example.org\n", **files}.items():
            data = content if isinstance(content, bytes) else content.encode()
            (folder / name).write_bytes(data)
        (tmp_path / "users").mkdir(exist_ok=True)
        (tmp_path / "users" / "assign").write_bytes(b".\n")
        (tmp_path / "users" / "cdb").write_bytes(compile_cdb([]))
        return Home(str(tmp_path))

    return make


def test_every_field_of_settings_is_a_definition() -> None:
    named = {definition.name for definition in DEFINITIONS} - {"morercpthosts.cdb"}
    assert named == set(Settings.__struct_fields__) - {"added"}


def test_every_example_and_default_parses() -> None:
    for definition in [each for each in DEFINITIONS if not each.binary]:
        for content in (definition.example, definition.default):
            text = ControlText(
                definition.name, ("a.example" if content in (None, "me") else content).encode()
            )
            definition.parse(text)
            assert not text.problems, (definition.name, str(text.problems[0]))


def test_defaults_are_those_of_qmail(make: Make) -> None:
    found = read_settings(make())
    assert found.me == found.helohost == found.bouncehost == found.envnoathost == b"mail.example.org"
    assert found.locals == {b"mail.example.org"}
    assert found.rcpthosts == frozenset(), "a missing rcpthosts closes relaying"
    assert found.smtpgreeting == b"mail.example.org"
    assert (found.bouncefrom, found.doublebounceto) == (b"MAILER-DAEMON", b"postmaster")
    assert (found.concurrencylocal, found.concurrencyremote, found.queuelifetime) == (10, 20, 604800)
    assert (found.timeoutconnect, found.timeoutremote, found.timeoutsmtpd) == (60, 1200, 1200)
    assert (found.databytes, found.maxrecipients, found.concurrencydestination) == (0, 1000, 10)
    assert found.defaultdelivery == b"./Maildir/\n"
    assert found.checkrcpt is True
    assert found.listen == found.resolvers == found.hooks == ()
    assert found.rules.match("192.0.2.1").allow


def test_lists_pass_over_comments_empty_lines_and_blanks_at_the_end(make: Make) -> None:
    found = read_settings(make(locals="# ours\n\nExample.ORG \t\nb.example\n   \n", rcpthosts=".Example.org"))
    assert found.locals == {b"example.org", b"b.example"}
    assert found.rcpthosts == {b".example.org"}


def test_an_empty_locals_is_not_a_missing_one(make: Make) -> None:
    assert read_settings(make(locals="")).locals == frozenset()


def test_one_value_is_the_first_line(make: Make) -> None:
    found = read_settings(make(me="Mail.Example.NET  \nrest\n", databytes="1000000\nnonsense\n"))
    assert found.me == b"mail.example.net"
    assert found.databytes == 1_000_000


def test_a_domain_beyond_ascii_is_known_by_both_spellings(make: Make) -> None:
    both = {"bücher.example".encode(), b"xn--bcher-kva.example"}
    assert read_settings(make(locals="Bücher.example")).locals == both
    assert read_settings(make(locals="xn--bcher-kva.example")).locals == both
    assert read_settings(make(me="bücher.example")).me == b"xn--bcher-kva.example"


def test_listen(make: Make) -> None:
    found = read_settings(make(listen="smtp 127.0.0.1:2525\nsubmission [::]:587\nother :995\n"))
    assert found.listen == (
        Listener("smtp", "127.0.0.1", 2525),
        Listener("submission", "::", 587),
        Listener("other", "", 995),
    )


def test_smtproutes(make: Make) -> None:
    lines = {
        "a.example:Relay.example:2525": (b"a.example", Route("smtp", (b"relay.example",), 2525)),
        ".b.example:[192.0.2.1]": (b".b.example", Route("smtp", (b"[192.0.2.1]",))),
        "c.example:[::1]:26": (b"c.example", Route("smtp", (b"[::1]",), 26)),
        "d.example:[IPv6:2001:DB8::1],x.example": (
            b"d.example",
            Route("smtp", (b"[2001:db8::1]", b"x.example")),
        ),
        "e.example:": (b"e.example", Route("smtp", ())),
        "f.example:192.0.2.9": (b"f.example", Route("smtp", (b"[192.0.2.9]",))),
        "g.example:lmtp!h.example:24": (b"g.example", Route("lmtp", (b"h.example",), 24)),
        "[192.0.2.7]:i.example": (b"[192.0.2.7]", Route("smtp", (b"i.example",))),
        "j.example::26": (b"j.example", Route("smtp", (), 26)),
        ":smart.example": (b"", Route("smtp", (b"smart.example",))),
    }
    found = read_settings(make(smtproutes="\n".join(lines)))
    assert found.smtproutes == dict(lines.values())


def test_virtualdomains(make: Make) -> None:
    content = "V.example:alice-v\n.w.example:bob\nBox@x.example:carol\nw.example:\n:catch\n"
    assert read_settings(make(virtualdomains=content)).virtualdomains == {
        b"v.example": b"alice-v",
        b".w.example": b"bob",
        b"box@x.example": b"carol",
        b"w.example": b"",
        b"": b"catch",
    }


def test_resolvers(make: Make) -> None:
    found = read_settings(make(resolvers="127.0.0.1\n[::1]:5353 trusted\n2001:db8::1\n192.0.2.1:54\n"))
    assert found.resolvers == (
        Resolver("127.0.0.1"),
        Resolver("::1", 5353, True),
        Resolver("2001:db8::1"),
        Resolver("192.0.2.1", 54),
    )


def test_a_missing_me_names_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "control").mkdir()
    with pytest.raises(ControlError, match=r"control/me: is missing; .*echo mail.example.org >") as error:
        read_settings(Home(str(tmp_path)))
    assert (error.value.file, error.value.line) == ("control/me", 0)
    told = [error for error in check(Home(str(tmp_path))).errors if error.file == "control/me"]
    assert len(told) == 1, "not once more for each file that falls back to it"


@pytest.mark.parametrize(
    ("name", "content", "line", "why"),
    [
        ("me", "\n", 1, "is empty"),
        ("me", "two words\n", 1, "not a domain"),
        ("me", b"\xff\xfe\n", 1, "UTF-8"),
        ("locals", "a.example\nb..example\n", 2, "not a domain"),
        ("locals", "a.example\n  b.example\n", 2, "begins with a blank"),
        ("locals", "a.example\nb\x00.example\n", 2, "cannot be printed"),
        ("rcpthosts", "#\n*.example.org\n", 2, "not a domain"),
        ("databytes", "10M\n", 1, "digits"),
        ("databytes", "-1\n", 1, "digits"),
        ("databytes", "9" * 5000, 1, "digits"),
        ("concurrencydestination", "0\n", 1, "from 1 to"),
        ("maxrecipients", "50\n", 1, "from 100"),
        ("timeoutsmtpd", "\n", 1, "is empty"),
        ("checkrcpt", "yes\n", 1, "neither 0 nor 1"),
        ("smtpgreeting", "mail.example.org grüß\n", 1, "ASCII"),
        ("smtpgreeting", "mail.example.org " + "x" * 400, 1, "400"),
        ("smtpgreeting", "** hello\n", 1, "not a domain"),
        ("listen", "smtp\n", 1, "needs a service and an address"),
        ("listen", "smtp 127.0.0.1\n", 1, "no port"),
        ("listen", "smtp 127.0.0.1:99999\n", 1, "from 0 to 65535"),
        ("listen", "smtp localhost:25\n", 1, "not an address"),
        ("listen", "smtp ::1:25\n", 1, "without brackets"),
        ("listen", "smtp [::1:25\n", 1, "not ADDRESS:PORT"),
        ("listen", "smtp 127.0.0.1:25 tls=yes\n", 1, "no option"),
        ("listen", "smtp 127.0.0.1:25 proxy\n", 1, "no option"),
        ("listen", "smtp :25\nsmtp :26 proxy=10.0.0.0/33\n", 2, "not a network"),
        ("listen", "smtp :26 proxy=\n", 1, "not a network"),
        ("listen", "smtp :26 xclient=front.example\n", 1, "not a network"),
        ("listen", "smtp :26 xclient=10.0.0.1/8\n", 1, "the network is 10.0.0.0/8"),
        ("listen", "smtp :26\nsmtp :26 xclient=10.0.0.1\n", 2, "the same as line 1"),
        ("listen", "smtp 127.0.0.1:25\nsmtp 127.0.0.1:25\n", 2, "same as line 1"),
        ("hooks", "greylist timeout=0\n", 1, "from 1 to 3600"),
        ("hooks", "greylist timeout=3 timeout=4\n", 1, "twice"),
        ("hooks", "greylist on_error=die\n", 1, "neither defer nor pass"),
        ("hooks", "Grey List\n", 1, "not an option"),
        ("hooks", "grey\ngrey timeout=5\n", 2, "the same as line 1"),
        ("hooks", "Grey\n", 1, "not a name"),
        ("virtualdomains", "v.example\n", 1, "no colon"),
        ("virtualdomains", "v.example:a\nV.example:b\n", 2, "another value in line 1"),
        ("virtualdomains", "v.example:a b\n", 1, "not a prefix"),
        (
            "smtproutes",
            "a.example:b.example:25:user\n",
            1,
            "no user and password",
        ),
        ("smtproutes", "a.example:b.example:smtp\n", 1, "digits"),
        ("smtproutes", "a.example:2526\n", 1, "has no relay before 2526; write DOMAIN:RELAY:PORT"),
        ("smtproutes", "a.example:::1\n", 1, "'::1' is IPv6 without brackets; write [::1]"),
        ("smtproutes", "a.example:lmtp!2001:db8::1\n", 1, "without brackets"),
        ("smtproutes", "a.example:[192.0.2.1]:26,[192.0.2.2]\n", 1, "write it behind the last"),
        ("smtproutes", "a.example:lmtp!/run/x\n", 1, "Unix sockets cannot be named here"),
        ("metrics", "::1:9099\n", 1, "'::1:9099' is IPv6 without brackets; write one like [::1]"),
        ("smtproutes", "a.example:[::1\n", 1, "bracket"),
        ("smtproutes", "a.example:[1.2.3]\n", 1, "literal"),
        ("smtproutes", "a.example:b,,c\n", 1, "not a domain"),
        ("smtproutes", "a.example:LM_TP!b\n", 1, "not a name"),
        ("smtproutes", "a.example:b.example:user secret\n", 1, "no port before its login"),
        ("smtproutes", "a.example:b.example|25|user|secret\n", 1, "no port before its login"),
        ("smtproutes", "a.example::25:user secret\n", 1, "no relay"),
        ("tlspolicy", "a.example\n", 1, "not DOMAIN POLICY"),
        ("tlspolicy", "a.example must\n", 1, "no policy; there are none, may, encrypt"),
        ("tlspolicy", "* may\n* none\n", 2, "another value in line 1"),
        ("tlspolicy", "a b.example may\n", 1, "not DOMAIN POLICY"),
        ("tlsclientciphers", "AES 256\n", 1, "not a list of ciphers"),
        ("resolvers", "127.0.0.1 trust\n", 1, "trusted"),
        ("resolvers", "dns.example\n", 1, "not an address"),
        ("bouncefrom", "a@b\n", 1, "user's part"),
        ("bounceformat", "rfc3464\n", 1, "write qmail or dsn"),
        ("bouncemaxbytes", "-1\n", 1, "bytes"),
        ("defaultdelivery", "\n./Maildir/\n", 1, "is empty"),
    ],
)
def test_mistakes(make: Make, name: str, content: str | bytes, line: int, why: str) -> None:
    home = make(**{name: content})
    with pytest.raises(ControlError) as error:
        read_settings(home)
    assert (error.value.file, error.value.line) == (f"control/{name}", line)
    assert why in error.value.why
    assert "\n" not in str(error.value)
    assert str(error.value) in map(str, check(home).errors)


def test_check_finds_all_of_them(make: Make) -> None:
    found = check(make(locals="a..b\n c\n", databytes="x", rules="127:allow\n1.2.3.4:alow\n"))
    assert [(error.file, error.line) for error in found.errors] == [
        ("control/rules", 1),
        ("control/rules", 2),
        ("control/databytes", 1),
        ("control/locals", 1),
        ("control/locals", 2),
    ]


def test_names_that_nothing_reads_are_warned_of(make: Make) -> None:
    files = {"rcpthost": "x", "qmqpservers": "x", "smtpplugins": "x", "zzz": "x", ".hidden": "x", "me~": "x"}
    found = check(make(listen="smtp 127.0.0.1:25", **files))
    warnings = {warning.file: warning.why for warning in found.warnings}
    assert "did you mean rcpthosts?" in warnings["control/rcpthost"]
    assert "netqmail's" in warnings["control/qmqpservers"]
    assert "eQmail's" in warnings["control/smtpplugins"]
    assert "not a control file" in warnings["control/zzz"]
    assert len(warnings) == 4


def test_what_sendmail_puts_in_are_control_files_like_others(make: Make) -> None:
    without = read_settings(make(listen="smtp 127.0.0.1:25"))
    assert {without.defaulthost, without.defaultdomain, without.plusdomain, without.idhost} == {without.me}
    home = make(defaulthost="Host+", defaultdomain="example.org", plusdomain="org", idhost="id.example")
    assert check(home).warnings == ()
    found = read_settings(home)
    assert (found.defaulthost, found.defaultdomain) == (b"host+", b"example.org")
    assert (found.plusdomain, found.idhost) == (b"org", b"id.example")
    (error,) = check(make(defaulthost="+")).errors
    assert error.file == "control/defaulthost"


def test_the_first_of_several_errors_says_how_many_more_there_are(make: Make) -> None:
    with pytest.raises(ControlError) as raised:
        read_settings(make(databytes="x", listen="smtp 127.0.0.1:25"))
    assert "control check" not in str(raised.value)
    with pytest.raises(ControlError) as raised:
        read_settings(make(rcpthosts="broken domain!"))
    assert str(raised.value).endswith("; 1 more: 'openqmail control check' names all")


def test_what_nothing_installed_provides_is_an_error(make: Make) -> None:
    found = check(make(listen="smpt 127.0.0.1:25", hooks="nosuch", smtproutes="a.example:pigeon!b.example"))
    assert [(error.file, error.why.split(";")[0]) for error in found.errors] == [
        ("control/listen", "there is no service 'smpt'"),
        ("control/smtproutes", "there is no transport 'pigeon'"),
        ("control/hooks", "there is no hook 'nosuch'"),
    ]
    assert [error.line for error in found.errors] == [1, 1, 1]


def test_figures_that_anybody_could_read_are_warned_of(make: Make) -> None:
    home = make(metrics="127.0.0.1:9099\n[::1]:9099\n192.0.2.1:9099\n:9100\n", listen="smtp 127.0.0.1:25\n")
    told = [str(one).partition(" is not of loopback")[0] for one in check(home).warnings]
    assert told == ["control/metrics: 192.0.2.1", "control/metrics: every address"]


@pytest.mark.parametrize(
    "line", ["9099", "localhost:9099", "127.0.0.1", "127.0.0.1:99999", "metrics 127.0.0.1:9099"]
)
def test_what_is_no_address_and_port_is_none_for_figures(make: Make, line: str) -> None:
    with pytest.raises(ControlError, match="control/metrics, line 1: "):
        read_settings(make(metrics=line + "\n"))


def test_figures_without_the_library_are_an_error_that_names_the_remedy(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extensions, "installed", lambda library: False)
    [error] = check(make(metrics="127.0.0.1:9099\n")).errors
    assert str(error).startswith("control/metrics: needs prometheus-client")
    assert "pip install 'openqmail-core[metrics]'" in str(error)


def test_contradictions_are_warned_of(make: Make) -> None:
    found = check(make(locals="a.example", virtualdomains="a.example:alice"))
    assert {warning.file for warning in found.warnings} == {"control/listen", "control/virtualdomains"}


def test_an_unreadable_file_is_an_error(make: Make, tmp_path: Path) -> None:
    home = make()
    (tmp_path / "control" / "databytes").mkdir()
    with pytest.raises(ControlError, match="control/databytes: cannot be read"):
        read_settings(home)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_no_content_breaks_a_parser(content: bytes) -> None:
    for definition in DEFINITIONS:
        text = ControlText(f"control/{definition.name}", content)
        definition.parse(text)
        for problem in text.problems:
            assert str(problem).isprintable(), "an error is one printable line"


@settings(max_examples=200)
@given(st.text(st.sampled_from("ab.:![],1-@ \"'=x"), max_size=40))
def test_lines_parse_or_are_refused(line: str) -> None:
    for definition in [each for each in DEFINITIONS if not each.binary]:
        text = ControlText(f"control/{definition.name}", line.encode())
        definition.parse(text)
        assert all(problem.line for problem in text.problems)


NEWMRH = Path(__file__).parents[4] / "shared" / "vectors" / "notqmail" / "tools" / "newmrh-normal.cdb"


@pytest.fixture
def newmrh() -> bytes:
    """What notqmail's qmail-newmrh made."""
    if not NEWMRH.is_file():
        pytest.skip("the recordings are not beside this checkout")
    return NEWMRH.read_bytes()


def _more(home: Home, name: str, content: bytes, seconds: int) -> None:
    path = os.path.join(home.control, name)
    with open(path, "wb") as file:
        file.write(content)
    os.utime(path, (seconds, seconds))


def test_morercpthosts_is_read_itself(make: Make) -> None:
    home = make()
    _more(home, "morercpthosts", b"More.example\n.more.example\n", 1000)
    assert read_settings(home).morercpthosts == {b"more.example", b".more.example"}


def test_a_compiled_morercpthosts_counts_until_its_source_is_newer(make: Make, newmrh: bytes) -> None:
    home = make()
    _more(home, "morercpthosts.cdb", newmrh, 1000)
    compiled = read_settings(home).morercpthosts
    assert compiled == {key for key, _ in Cdb(newmrh).items()} and len(compiled) > 1
    _more(home, "morercpthosts", b"other.example\n", 1000)
    assert read_settings(home).morercpthosts == compiled
    assert not [each for each in check(home).warnings if "morercpthosts" in str(each)]
    _more(home, "morercpthosts", b"other.example\n", 2000)
    assert read_settings(home).morercpthosts == {b"other.example"}
    assert any("older than control/morercpthosts" in str(each) for each in check(home).warnings)


def test_a_damaged_cdb_is_an_error_that_says_what_helps(make: Make) -> None:
    home = make()
    _more(home, "morercpthosts.cdb", b"no database", 1000)
    with pytest.raises(ControlError, match=r"morercpthosts\.cdb.* is damaged; make it anew"):
        read_settings(home)


@pytest.mark.parametrize(
    ("name", "line", "why"),
    [
        ("badmailfrom", "example.org", "@example.org for a domain"),
        ("badrcptto", "a b@example.org", "not an address"),
        ("badhelo", "two words", "says of itself"),
        ("dnsbl", "zen", "not the zone"),
        ("dnsbl", "bl.example=127.0.0", "no answer of a list"),
        ("dnsbl", "bl.example=127.0.0.9-2", "no answer of a list"),
        ("dnsbl", "bl.example=127.0.0.2:x", "no weight"),
        ("dnsbl", "bl.example:0", "no weight"),
        ("dnsbl", "bl.example é", "cannot carry"),
        ("dnsblscore", "0", "from 1 to 9999"),
        ("tarpit", "61", "from 0 to 60"),
        ("greetdelay", "301", "from 0 to 300"),
        ("maxerrors", "0", "from 1 to 1000"),
        ("lookupclients", "yes", "neither 0 nor 1"),
    ],
)
def test_mistakes_about_who_may_send_name_their_line(make: Make, name: str, line: str, why: str) -> None:
    with pytest.raises(ControlError, match=rf"control/{name}.*1.*{why}"):
        read_settings(make(**{name: line + "\n"}))


def test_limits_have_sane_defaults(make: Make) -> None:
    found = read_settings(make())
    assert (found.concurrencynetwork, found.maxerrors, found.maxbadrcpt, found.tarpit) == (50, 20, 20, 1)
    assert (found.connectionsperhour, found.messagesperhour, found.recipientsperhour) == (3600, 3600, 10_000)
    assert (found.maxmessages, found.maxconnectionrecipients) == (1000, 10_000)
    assert (found.mindatarate, found.greetdelay, found.dnsblscore) == (100, 0, 1)
    assert found.dnsbl == found.badhelo == ()
    assert not found.lookupclients and not found.requirereverse
    assert found.localiphost == b"mail.example.org"


def test_a_list_of_good_clients_weighs_less_than_nothing(make: Make) -> None:
    lines = "Zen.example.=127.0.0.2-11:2\nwl.example:-3 well known\nbl.example  see us\n"
    zen, good, plain = read_settings(make(dnsbl=lines)).dnsbl
    assert (zen.zone, zen.weight, zen.codes[3], zen.text) == (b"zen.example", 2, (2, 11), b"")
    assert (good.weight, good.text) == (-3, b"well known")
    assert (plain.zone, plain.weight, plain.text) == (b"bl.example", 1, b"see us")
    assert zen.counts("127.0.0.11") and not zen.counts("127.0.0.12")
    assert plain.counts("127.9.9.9") and not plain.counts("127.255.255.252") and not plain.counts("10.0.0.1")
