"""Front ends: a real HAProxy with both versions of its header, with TLS behind it; swaks with XCLIENT, in TLS
too; smtplib with BDAT."""

import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator

import pytest

from certificates import Authority
from homes import Home, Place, Waiting, free_port

CLIENT = "127.0.0.3"
"""Who may relay; HAProxy itself may not."""
DENIED = "127.0.0.4"

CONFIGURATION = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen one
    bind 127.0.0.1:{first}
    server here 127.0.0.1:{port} source 127.0.0.7 send-proxy check check-send-proxy inter 200ms
listen two
    bind 127.0.0.1:{second}
    server here 127.0.0.1:{port} source 127.0.0.7 send-proxy-v2 check check-send-proxy inter 200ms
listen three
    bind 127.0.0.1:{third}
    server here 127.0.0.1:{port} source 127.0.0.7 send-proxy-v2 proxy-v2-options crc32c,unique-id
listen four
    bind 127.0.0.1:{fourth}
    server here 127.0.0.1:{smtps} source 127.0.0.7 send-proxy-v2
"""


AUTHORITY = Authority()
SMTPS = free_port()


@pytest.fixture(scope="module")
def served() -> Iterator[Home]:
    with Place() as place:
        home = place.home("a.example", "alice", "bob")
        fronts = "proxy=127.0.0.7 xclient=127.0.0.1"
        home.control("listen", f"smtp 127.0.0.1:{home.port} {fronts}\nsmtps 127.0.0.1:{SMTPS} {fronts}")
        pem = home.path / "control" / "servercert.pem"
        pem.write_bytes(AUTHORITY.issue(hosts=("a.example",)).pem)
        pem.chmod(0o644)  # whoever owns the home reads it
        home.control("rules", f'{DENIED}:deny\n{CLIENT}:allow,RELAYCLIENT=""\n:allow')
        home.start()
        yield home
        assert home.stop() == 0


@pytest.fixture(scope="module")
def haproxy(
    served: Home, program: Callable[[str], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[int]]:
    """Its ports: version 1, version 2, version 2 with more in its header; version 2 to where TLS begins."""
    ports = [free_port() for _ in range(4)]
    file = tmp_path_factory.mktemp("haproxy") / "haproxy.cfg"
    names = dict(zip(("first", "second", "third", "fourth"), ports, strict=True))
    file.write_text(CONFIGURATION.format(port=served.port, smtps=SMTPS, **names))
    running = subprocess.Popen([program("haproxy"), "-db", "-f", str(file)], stderr=subprocess.DEVNULL)
    try:
        for port in ports:
            for _ in Waiting("haproxy listens"):
                with socket.socket() as trial:
                    if trial.connect_ex(("127.0.0.1", port)) == 0:
                        break
        yield ports
    finally:
        running.terminate()
        running.wait(10)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_behind_haproxy_rules_trace_and_log_see_the_client(
    served: Home, haproxy: list[int], which: int
) -> None:
    alice = len(served.mails("alice"))
    with smtplib.SMTP("127.0.0.1", haproxy[which], "c.example", 20, (CLIENT, 0)) as client:
        client.sendmail("s@c.example", ["alice@a.example"], b"Subject: %d\r\n\r\nx\r\n" % which)
        assert client.mail("s@c.example")[0] == client.rcpt("joe@elsewhere.example")[0] == 250
    mails = served.wait_mails("alice", alice + 1)
    assert [f"([{CLIENT}])".encode() in mail for mail in mails if b"Subject: %d\n" % which in mail] == [True]
    with smtplib.SMTP("127.0.0.1", haproxy[which], "c.example", 20, ("127.0.0.5", 0)) as client:
        client.ehlo()
        assert client.mail("s@c.example")[0] == 250
        assert client.rcpt("joe@elsewhere.example")[0] == 553
    with pytest.raises(smtplib.SMTPConnectError) as denied:
        smtplib.SMTP("127.0.0.1", haproxy[which], "c.example", 20, (DENIED, 0))
    assert denied.value.smtp_code == 554
    for _ in Waiting("the log has the session"):
        lines = served.log.read_bytes().splitlines()
        if any(b"session denied: client 127.0.0.4:" in line and b" via 127.0.0.7:" in line for line in lines):
            break


@pytest.mark.parametrize("which", [1, 3])
def test_tls_goes_through_haproxy_to_the_client_itself(served: Home, haproxy: list[int], which: int) -> None:
    alice, source = len(served.mails("alice")), (CLIENT, 0)
    context = ssl.create_default_context(cadata=AUTHORITY.certificate.decode())
    context.check_hostname = False
    with (
        smtplib.SMTP_SSL("127.0.0.1", haproxy[which], "c.example", context=context, source_address=source)
        if which == 3
        else smtplib.SMTP("127.0.0.1", haproxy[which], "c.example", 20, source)
    ) as client:
        if which != 3:
            client.starttls(context=context)
        client.sendmail("s@c.example", ["alice@a.example"], b"Subject: tls %d\r\n\r\nx\r\n" % which)
    mails = served.wait_mails("alice", alice + 1)
    [mail] = [mail for mail in mails if b"Subject: tls %d\n" % which in mail]
    assert f"([{CLIENT}])".encode() in mail and b" with ESMTPS tls " in mail.replace(b"\n ", b"")


def test_a_client_that_is_not_behind_it_is_served_as_itself(served: Home) -> None:
    with smtplib.SMTP("127.0.0.1", served.port, "c.example", 20, ("127.0.0.6", 0)) as client:
        client.ehlo()
        assert not client.has_extn("xclient")
        assert client.docmd("XCLIENT", f"ADDR={CLIENT}")[0] == 502
        assert client.docmd("PROXY", f"TCP4 {CLIENT} 127.0.0.1 1 25")[0] == 500
        assert client.mail("s@c.example")[0] == 250
        assert client.rcpt("joe@elsewhere.example")[0] == 553


@pytest.mark.parametrize("tls", [False, True])
def test_swaks_speaks_for_another_client(served: Home, program: Callable[[str], str], tls: bool) -> None:
    alice = len(served.mails("alice"))
    told = ["--tls"] if tls else []  # of itself it says XCLIENT within TLS
    told += ["--server", f"127.0.0.1:{served.port}", "--helo", "c.example", "--from", "s@c.example"]
    told += ["--to", "alice@a.example", "--xclient-addr", CLIENT, "--xclient-port", "4711"]
    told += ["--xclient-name", "spike.example", "--xclient-helo", "[192.0.2.9]"]
    ran = subprocess.run([program("swaks"), *told], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout
    mails = served.wait_mails("alice", alice + 1)
    assert [
        mail
        for mail in mails
        if b"from c.example (spike.example [127.0.0.3])" in mail
        and b"\nX-Mailer: swaks" in mail
        and (b" with ESMTPS tls " in mail.replace(b"\n ", b"")) == tls
    ]
    told[told.index(CLIENT)] = DENIED
    ran = subprocess.run([program("swaks"), *told], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode != 0 and "554" in ran.stdout


def test_chunks_by_hand_arrive_to_the_octet(served: Home) -> None:
    alice = len(served.mails("alice"))
    body = b"Subject: x\r\n\r\n.\r\n..\r\nGr\xc3\xbc\xc3\x9fe\r\n" + b"y" * 998 + b"\r\nno end"
    with smtplib.SMTP("127.0.0.1", served.port, "c.example", 20) as client:
        client.ehlo()
        assert client.has_extn("chunking") and "RCPTMAX=" in client.esmtp_features["limits"]
        client.mail("s@c.example", ["BODY=8BITMIME"])
        client.rcpt("alice@a.example")
        for at in range(0, len(body), 100):
            piece = body[at : at + 100]
            client.send(b"BDAT %d\r\n%b" % (len(piece), piece))
            assert client.getreply()[0] == 250
        assert client.docmd("BDAT", "0 LAST")[0] == 250
    mails = served.wait_mails("alice", alice + 1)
    assert [mail for mail in mails if mail.endswith(body.replace(b"\r\n", b"\n"))]
