"""Our resolver asks a real unbound, which serves zones of the test's own and validates DNSSEC.

One instance on a port of loopback.  It has an unsigned zone, a signed one whose key is its trust
anchor, one that was tampered with after it was signed, an empty one, and one whose servers are gone.
"""

import asyncio
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from homes import Waiting, free_port
from openqmail.core.dns import (
    Answer,
    Cache,
    LookupFailed,
    MailExchanger,
    NameServer,
    NoReply,
    NoSuchName,
    Patience,
    ServerFailed,
    StubResolver,
)

ZONE = """\
$TTL 60
@ IN SOA ns.{zone} root.{zone} 1 3600 600 86400 30
@ NS ns
@ MX 20 Second
@ MX 10 first
ns A 192.0.2.53
first A 192.0.2.1
first AAAA 2001:db8::1
second A 192.0.2.2
alias CNAME middle
middle CNAME first
byalias MX 10 alias
whole CNAME @
dangling CNAME gone
loop CNAME pool
pool CNAME loop
null MX 0 .
zero 0 MX 10 first
{many}
"""

SERVER = """\
server:
  interface: 127.0.0.1@{port}
  port: {port}
  directory: "{folder}"
  chroot: ""
  username: ""
  pidfile: ""
  use-syslog: no
  logfile: "{folder}/log"
  do-ip6: no
  do-not-query-localhost: no
  module-config: "validator iterator"
  ede: yes
  local-zone: "test." nodefault
  trust-anchor-file: "{folder}/anchors"
remote-control:
  control-enable: no
forward-zone:
  name: "dead.test."
  forward-addr: 127.0.0.1@{closed}
"""

AUTHORITY = """\
auth-zone:
  name: "{zone}"
  zonefile: "{folder}/{zone}zone"
  for-downstream: no
  for-upstream: yes
  fallback-enabled: no
"""


def zone_text(zone: str) -> str:
    many = "\n".join(f"many MX {number} exchanger-number-{number}" for number in range(1, 151))
    return ZONE.format(zone=zone, many=many)


def sign(zone: str, folder: Path) -> str:
    """Writes the zone, signed; the trust anchor for it."""
    pytest.importorskip("cryptography", reason="zones are signed with cryptography")
    import dns.dnssec
    import dns.zone
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    public = dns.dnssec.make_dnskey(key.public_key(), "ECDSAP256SHA256", flags=257)
    made = dns.zone.from_text(zone_text(zone), origin=zone, relativize=False)
    with made.writer() as transaction:
        dns.dnssec.sign_zone(made, transaction, keys=[(key, public)], lifetime=86400, add_dnskey=True)
    (folder / f"{zone}zone").write_text(made.to_text(relativize=False))
    return f"{zone} 60 IN DNSKEY {public.to_text()}\n"


@pytest.fixture(scope="module")
def port(program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a running unbound."""
    unbound = program("unbound")
    folder = tmp_path_factory.mktemp("unbound")
    (folder / "plain.test.zone").write_text(zone_text("plain.test."))
    (folder / "lost.test.zone").write_text("")
    anchors = sign("signed.test.", folder) + sign("bogus.test.", folder)
    (folder / "anchors").write_text(anchors)
    bogus = folder / "bogus.test.zone"
    text = bogus.read_text()
    assert "192.0.2.1\n" in text
    bogus.write_text(text.replace("192.0.2.1\n", "192.0.2.66\n").replace(" 10 first", " 11 first"))
    port, closed = free_port(), free_port()
    zones = ("plain.test.", "signed.test.", "bogus.test.", "lost.test.")
    configuration = SERVER.format(port=port, folder=folder, closed=closed)
    configuration += "".join(AUTHORITY.format(zone=zone, folder=folder) for zone in zones)
    (folder / "unbound.conf").write_text(configuration)
    with (folder / "output").open("wb") as output:
        server = subprocess.Popen(
            [unbound, "-d", "-c", str(folder / "unbound.conf")], stdout=output, stderr=subprocess.STDOUT
        )
    try:
        for _ in Waiting("unbound answers"):
            assert server.poll() is None, (folder / "output").read_text() + (folder / "log").read_text()
            try:
                ask(port, lambda resolver: resolver.mx(b"plain.test"), patience=Patience(0.5, 1.0))
            except LookupFailed:
                continue
            break
        yield port
    finally:
        server.terminate()
        server.wait()


def ask(
    port: int,
    work: Callable[[StubResolver], Awaitable[Any]],
    *,
    trusted: bool = True,
    patience: Patience | None = None,
    cache: Cache | None = None,
) -> Any:
    async def main() -> Any:
        server = NameServer("127.0.0.1", port, trusted)
        return await work(StubResolver([server], cache=cache, patience=patience or Patience(60.0, 60.0)))

    return asyncio.run(main())


def mx(port: int, name: str, **options: Any) -> Answer[MailExchanger]:
    found: Answer[MailExchanger] = ask(port, lambda resolver: resolver.mx(name.encode()), **options)
    return found


def addresses(port: int, name: str, **options: Any) -> Answer[str]:
    found: Answer[str] = ask(port, lambda resolver: resolver.addresses(name.encode()), **options)
    return found


@pytest.mark.parametrize("zone", ["plain.test", "signed.test"])
def test_exchangers_and_addresses_also_through_aliases(port: int, zone: str) -> None:
    both = (MailExchanger(10, f"first.{zone}".encode()), MailExchanger(20, f"second.{zone}".encode()))
    for name in (zone, f"whole.{zone}", f"{zone.upper()}."):
        assert mx(port, name).records == both
    assert 0 < mx(port, zone).ttl <= 60
    assert mx(port, f"byalias.{zone}").records == (MailExchanger(10, f"alias.{zone}".encode()),)
    for name in ("first", "alias"):
        assert addresses(port, f"{name}.{zone}").records == ("192.0.2.1", "2001:db8::1")
    assert addresses(port, f"second.{zone}").records == ("192.0.2.2",)
    assert mx(port, f"null.{zone}").records == (MailExchanger(0, b""),)


@pytest.mark.parametrize("zone", ["plain.test", "signed.test"])
def test_no_such_name_and_no_such_record(port: int, zone: str) -> None:
    for name in (f"gone.{zone}", f"dangling.{zone}"):
        with pytest.raises(NoSuchName):
            mx(port, name)
        with pytest.raises(NoSuchName):
            addresses(port, name)
    for name in (f"first.{zone}", f"alias.{zone}"):
        found = mx(port, name)
        assert found.records == ()
        assert 0 < found.ttl <= 30, "the SOA says for how long there is none"
        assert found.authentic is (zone == "signed.test")


def test_what_is_known_is_answered_after_the_server_is_gone(port: int) -> None:
    cache = Cache()
    assert mx(port, "plain.test", cache=cache).records
    with pytest.raises(NoSuchName):
        mx(port, "gone.plain.test", cache=cache)
    mx(port, "zero.plain.test", cache=cache)
    closed = free_port()
    assert mx(closed, "plain.test", cache=cache).records
    with pytest.raises(NoSuchName):
        mx(closed, "gone.plain.test", cache=cache)
    with pytest.raises(LookupFailed):
        mx(closed, "zero.plain.test", cache=cache)


def test_a_server_that_cannot_tell_and_one_that_is_too_slow_about_it(port: int) -> None:
    with pytest.raises(ServerFailed, match="SERVFAIL"):
        mx(port, "lost.test")
    with pytest.raises(NoReply):
        mx(port, "dead.test", patience=Patience(a_try=0.1, a_lookup=0.2))


def test_aliases_in_a_circle_are_a_failure(port: int) -> None:
    with pytest.raises(LookupFailed):
        mx(port, "loop.plain.test")


def test_an_answer_too_large_for_a_datagram_comes_by_tcp(port: int) -> None:
    for zone in ("plain.test", "signed.test"):
        found = mx(port, f"many.{zone}").records
        assert [each.preference for each in found] == list(range(1, 101))


def test_what_dnssec_proves_is_authentic_where_the_server_is_trusted(port: int) -> None:
    for trusted in (True, False):
        assert mx(port, "signed.test", trusted=trusted).authentic is trusted
        assert addresses(port, "alias.signed.test", trusted=trusted).authentic is trusted
        assert not mx(port, "plain.test", trusted=trusted).authentic


def test_what_was_tampered_with_is_a_failure_that_says_so(port: int) -> None:
    for trusted in (True, False):
        with pytest.raises(ServerFailed, match=r"says SERVFAIL, extended error \d+"):
            mx(port, "bogus.test", trusted=trusted)
    # The IPv6 address was left as it was signed.
    assert addresses(port, "first.bogus.test").records == ("2001:db8::1",)
