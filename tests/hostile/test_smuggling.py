"""A message that holds what some host takes for its end: nothing behind it is ever taken for commands.

Each form stands between an honest message and a forged one.  By DATA it ends the session; by BDAT the
chunk is swallowed, refused, and nothing of it is obeyed.  And what plays with the length of chunks.
"""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from false_ends import FALSE_ENDS
from homes import Home, Place

ENVELOPE = b"EHLO c.example\r\nMAIL FROM:<s@c.example>\r\nRCPT TO:<alice@a.example>\r\n"
FORGED = (
    b"MAIL FROM:<boss@a.example>\r\nRCPT TO:<bob@a.example>\r\nDATA\r\nSubject: forged\r\n\r\nforged\r\n.\r\n"
)

HARMLESS = [
    b"\r\n..\r\n",
    b"\r\n. \r\n",
    b"\r\n .\r\n",
    b"\r\n.\t\r\n",
    b"\r\n.\xa0\r\n",
    b"\r\n.\x85\r\n",
    b"\r\n...\r\n",
    b"\x8d\x8a.\x8d\x8a\r\n",
    b"\xc2\x85.\xc2\x85\r\n",
    b"\xe2\x80\xa8.\xe2\x80\xa8\r\n",
    b"\x0b.\x0b\x0c.\x0c\r\n",
]
"""Text, whatever it looks like."""


@pytest.fixture(scope="module")
def served() -> Iterator[Home]:
    with Place() as place:
        home = place.home("a.example", "alice", "bob")
        home.control("databytes", "100000")
        home.control("timeoutsmtpd", "5")
        home.start()
        yield home
        assert home.stop() == 0


def codes(home: Home, *pieces: bytes) -> list[int]:
    """What each command was answered with, EHLO's answer first; each piece is a packet of its own."""
    said = b""
    with socket.create_connection(("127.0.0.1", home.port), 10) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.settimeout(20)
        with contextlib.suppress(ConnectionError):
            for piece in pieces:
                peer.sendall(piece)
        with contextlib.suppress(ConnectionError):
            while data := peer.recv(65536):
                said += data
    return [int(line[:3]) for line in said.splitlines()[1:] if line[3:4] == b" "]


def packets(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def chunk(data: bytes, last: bool = True) -> bytes:
    return b"BDAT %d%b\r\n%b" % (len(data), b" LAST" if last else b"", data)


def assert_nothing_forged(home: Home, alice: int) -> None:
    """The service is well, and by the time it has taken one more message nothing else has come."""
    well = codes(home, ENVELOPE + b"DATA\r\nstill well\r\n.\r\nQUIT\r\n")
    assert well == [250, 250, 250, 354, 250, 221]
    assert len(home.wait_mails("alice", alice + 1)) == alice + 1
    assert home.mails("bob") == []


@pytest.mark.parametrize("size", [1 << 16, 1])
@pytest.mark.parametrize("end", FALSE_ENDS, ids=repr)
def test_by_data_a_false_end_ends_the_session(served: Home, end: bytes, size: int) -> None:
    alice = len(served.mails("alice"))
    body = b"Subject: x\r\n\r\nhello" + end + FORGED
    said = codes(served, ENVELOPE + b"DATA\r\n", *packets(body + b"QUIT\r\n", size))
    assert said == [250, 250, 250, 354, 554]
    assert len(served.mails("alice")) == alice and served.mails("bob") == []


@pytest.mark.parametrize("divided", [False, True])
@pytest.mark.parametrize("end", FALSE_ENDS, ids=repr)
def test_by_bdat_it_is_refused_and_the_session_goes_on(served: Home, end: bytes, divided: bool) -> None:
    alice = len(served.mails("alice"))
    body = b"Subject: x\r\n\r\nhello" + end + FORGED
    if divided:  # a chunk ends within the false end
        cut = body.index(end) + len(end) // 2
        said = codes(served, ENVELOPE, chunk(body[:cut], False), chunk(body[cut:]), b"QUIT\r\n")
        assert said[:3] == [250, 250, 250] and said[-1] == 221
        assert said[3:-1] in ([554, 503], [250, 554])
    else:
        assert codes(served, ENVELOPE, chunk(body), b"QUIT\r\n") == [250, 250, 250, 554, 221]
    assert len(served.mails("alice")) == alice and served.mails("bob") == []


@pytest.mark.parametrize("form", HARMLESS, ids=repr)
def test_what_only_looks_like_an_end_is_text(served: Home, form: bytes) -> None:
    alice = len(served.mails("alice"))
    body = b"Subject: x\r\n\r\nhello" + form + FORGED.removesuffix(b".\r\n")
    assert codes(served, ENVELOPE + b"DATA\r\n", body + b".\r\nQUIT\r\n") == [250, 250, 250, 354, 250, 221]
    assert codes(served, ENVELOPE, chunk(body), b"QUIT\r\n") == [250, 250, 250, 250, 221]
    mails = served.wait_mails("alice", alice + 2)
    by_bdat = body.replace(b"\r\n", b"\n")
    by_data = by_bdat.replace(b"\n.", b"\n")  # the dot in front was one for transparency
    assert [mail for mail in mails if mail.endswith(by_bdat)]
    assert [mail for mail in mails if mail.endswith(by_data)]
    assert served.mails("bob") == []


CONFUSED = {
    "a length that is too short: the rest is commands of this client, and none that it may": (
        [b"BDAT 5 LAST\r\nhello", b" world\r\n", b"QUIT\r\n"],
        [250, 500, 221],
    ),
    "a length that is too long swallows what follows": ([b"BDAT 200 LAST\r\n", b"hello\r\n" + FORGED], [421]),
    "nothing at all": ([b"BDAT 0 LAST\r\n", b"QUIT\r\n"], [250, 221]),
    "a dot for the end": ([b"BDAT 7\r\nhello\r\n", b".\r\n", b"QUIT\r\n"], [250, 500, 221]),
    "DATA after a chunk": ([chunk(b"x\r\n", False), b"DATA\r\n", b"QUIT\r\n"], [250, 503, 221]),
    "a chunk after 354": ([b"DATA\r\n", chunk(b"x\r\n"), b".\r\n", b"QUIT\r\n"], [354, 250, 221]),
    "MAIL between chunks": (
        [chunk(b"x\r\n", False), b"MAIL FROM:<boss@a.example>\r\n", b"QUIT\r\n"],
        [250, 503, 221],
    ),
    "a chunk after the last": ([chunk(b"x\r\n"), chunk(FORGED), b"QUIT\r\n"], [250, 503, 221]),
    "a chunk after RSET": ([b"RSET\r\n", chunk(FORGED), b"QUIT\r\n"], [250, 503, 221]),
    "more than is taken": (
        [b"BDAT 100001 LAST\r\n", FORGED, b"x" * (100001 - len(FORGED)), b"QUIT\r\n"],
        [552, 221],
    ),
    "more than is swallowed": ([b"BDAT 99999999999 LAST\r\n", FORGED], [552]),
    "a number that is none": ([b"BDAT 1e3 LAST\r\n", FORGED], [501]),
    "a number without end": ([b"BDAT " + b"9" * 1000 + b" LAST\r\n", FORGED], [501]),
    "no last one": ([chunk(b"x\r\n", False)], [250, 421]),
}


@pytest.mark.parametrize("how", CONFUSED)
def test_chunks_that_lie_bring_nothing_in(served: Home, how: str) -> None:
    pieces, expected = CONFUSED[how]
    assert codes(served, ENVELOPE, *pieces) == [250, 250, 250, *expected]
    assert served.mails("bob") == []


def test_a_client_that_leaves_in_a_chunk_leaves_nothing_behind(served: Home) -> None:
    alice = len(served.mails("alice"))
    for piece in (b"BDAT 10 LAST\r\n", b"BDAT 10 LAST\r\nhalf", chunk(b"x\r\n", False)):
        with socket.create_connection(("127.0.0.1", served.port), 10) as peer:
            peer.sendall(ENVELOPE + piece)
            peer.shutdown(socket.SHUT_WR)
            peer.settimeout(20)
            while peer.recv(65536):
                pass
    assert_nothing_forged(served, alice)


# --- strangers who play a front end ------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 25\r\n",
        b"PROXY UNKNOWN\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x19",
    ],
)
def test_a_stranger_may_not_say_who_he_is(header: bytes) -> None:
    with Place() as place:
        home = place.home("a.example", "alice")
        home.control("listen", f"smtp 127.0.0.1:{home.port} proxy=127.0.0.7 xclient=127.0.0.7")
        home.control("rules", ':allow\n127.0.0.9:allow,RELAYCLIENT=""')
        home.start()
        said = codes(home, header, b"EHLO c.example\r\n", b"XCLIENT ADDR=127.0.0.9\r\n", b"QUIT\r\n")
        assert said[0] == 500 and 220 not in said
        assert home.stop() == 0
        lines = [line for line in home.log.read_bytes().splitlines() if b"smtpd: session" in line]
        assert len(lines) == 1 and b"client 127.0.0.1:" in lines[0] and b" via " not in lines[0]
