"""`sendmail`: hands a message from standard input to the service of this host.

The options that programs use (cron, mutt, PHP); what of sendmail's can mean nothing here is
passed over, what cannot be done is refused with a sentence.  Waits while the service restarts.
Exits 0 accepted, 100 never, 111 later.  It is started for every single mail, so it imports
nothing that Python has not loaded itself but `socket`; tests hold it to that.
"""

from __future__ import annotations

import os
import sys
import time

from openqmail.core.message.origination import Stamp, fields, header_size
from openqmail.core.submit import client
from openqmail.core.submit.addresses import AddressError, Defaults, plain
from openqmail.core.submit.compose import Author, HeaderError, compose, resolved
from openqmail.core.submit.spool import Spool, pieces
from openqmail.core.submit.wire import request_head

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

DONE, NEVER, LATER = 0, 100, 111

HOMES = ("/var/qmail", "/etc/openqmail")
"""Where a home is when none is named."""

USAGE = "usage: sendmail [--home DIR] [-t] [-i] [-f ADDRESS] [-F NAME] [RECIPIENT ...]"

OPTIONS = (
    ("--home DIR", "the home of the service; has to be the first argument"),
    ("-t", "send to the recipients in To, Cc and Bcc (of a resent message: Resent-To, -Cc, -Bcc), too"),
    ("-i", "a line that is only a dot does not end the message; -oi is the same"),
    ("-f ADDRESS", "the envelope's sender, who is told of failures; -r is the same"),
    ("-F NAME", "the name in the From field, when the message has none"),
    ("-bm", "send a message, as without it"),
    ("-B TYPE", "7BIT or 8BITMIME; the message is passed on as it is"),
    ("-N, -R, -V", "refused: reports of delivery cannot be asked for yet; by SMTP they can"),
    ("-e, -m, -n, -v, -x, -A, -G, -L, -p, -U, -o", "passed over, with their values"),
    ("--", "what follows are recipients"),
    ("--help, --version", "say what this is"),
)
"""For people: the manual page is made from it."""

_WITH_VALUE = b"frFobeBpLA"
_PASSED_OVER = b"mnvxGU"
_MODES = {
    b"p": "-bp: 'openqmail queue list' shows the queue",
    b"s": "-bs: SMTP is spoken on the ports that control/listen names",
    b"d": "-bd: the service is started by 'openqmail run'",
    b"D": "-bD: the service is started by 'openqmail run'",
    b"i": "-bi: there is no table of aliases to be made anew",
}
_REFUSED = {
    b"q": "-q: 'openqmail queue flush' tries everything now",
    b"N": "-N: reports of delivery cannot be asked for yet",
    b"R": "-R: reports of delivery cannot be asked for yet",
    b"V": "-V: an envelope id cannot be passed on yet",
    b"X": "-X: no log of the dialogue is kept",
    b"C": "-C: settings are the control files of the home; name another with --home",
    b"O": "-O: settings are the control files of the home",
}
_HARMLESS_SETTINGS = b"demsv78"


class _Failure(Exception):
    """The one sentence that is said, and the exit code."""

    def __init__(self, why: object, code: int) -> None:
        super().__init__(str(why))
        self.code = code


class _Request:
    """What the command line asks for."""

    __slots__ = ("dot", "home", "name", "named_in_header", "recipients", "sender")

    def __init__(self) -> None:
        self.home = ""
        self.recipients: list[bytes] = []
        self.named_in_header = False
        self.dot = True
        self.sender: bytes | None = None
        self.name: bytes | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] in (["--help"], ["--version"]):
        return _about(words[0])
    try:
        return _send(_parse(words))
    except _Failure as failure:
        return _failed(failure, failure.code)
    except (AddressError, HeaderError) as error:
        return _failed(error, NEVER)
    except OSError as error:
        return _failed(f"{error.filename or 'the message'}: {error.strerror or error}", LATER)
    except KeyboardInterrupt:
        return _failed("interrupted", LATER)


# --- the command line ---------------------------------------------------------------------


def _parse(words: list[str]) -> _Request:
    request = _Request()
    if words[:1] == ["--home"]:
        if len(words) == 1:
            raise _Failure("--home needs a folder behind it", NEVER)
        request.home = words[1]
        words = words[2:]
    rest = iter([os.fsencode(word) for word in words])
    for word in rest:
        if word == b"--":
            request.recipients += rest
        elif len(word) > 1 and word.startswith(b"-"):
            letters = word[1:]
            while letters:
                letter, letters = letters[:1], letters[1:]
                value = None
                if letter in _WITH_VALUE:
                    value = letters or next(rest, None)
                    letters = b""
                    if value is None:
                        raise _Failure(f"-{letter.decode()} needs a value behind it", NEVER)
                _take(request, letter, value or b"")
        else:
            request.recipients.append(word)
    return request


def _take(request: _Request, letter: bytes, value: bytes) -> None:
    if letter == b"t":
        request.named_in_header = True
    elif letter == b"i" or (letter == b"o" and value == b"i"):
        request.dot = False
    elif letter in (b"f", b"r"):
        request.sender = value
    elif letter == b"F":
        request.name = value
    elif letter == b"b":
        if value != b"m":
            raise _Failure(_MODES.get(value, f"-b{value.decode('ascii', 'replace')}: is not known"), NEVER)
    elif letter == b"B":
        if value.upper() not in (b"7BIT", b"8BITMIME"):
            raise _Failure("-B: a message is 7BIT or 8BITMIME", NEVER)
    elif letter == b"o":
        if value[:1] not in _HARMLESS_SETTINGS:
            raise _Failure(f"-o{value.decode('ascii', 'replace')}: is not known", NEVER)
    elif letter not in _PASSED_OVER and letter not in _WITH_VALUE:
        unknown = f"-{letter.decode('ascii', 'replace')}: is not known; {USAGE}"
        raise _Failure(_REFUSED.get(letter, unknown), NEVER)


def _about(word: str) -> int:
    if word == "--version":
        from openqmail.core.__about__ import __version__  # noqa: PLC0415  # of no use to a mail

        print(f"sendmail (openqmail {__version__})")
        return DONE
    print(f"{USAGE}\n\nSend the message on standard input.\n")
    for option, text in OPTIONS:
        print(f"  {option}\n      {text}")
    print("\nexample:\n  printf 'To: alice\\nSubject: hello\\n\\nFirst mail.\\n' | sendmail -t")
    return DONE


# --- the message --------------------------------------------------------------------------


def _send(request: _Request) -> int:
    home = request.home or _home()
    defaults, id_host = _defaults(home)
    author, sender = _who(request, defaults)
    recipients = [resolved(one, defaults) for one in request.recipients]
    if b"" in recipients:
        raise _Failure("an empty recipient is named", NEVER)
    if not recipients and not request.named_in_header:
        raise _Failure("no recipient is named; name some, or take them from the header with -t", NEVER)
    with open(0, "rb", buffering=65536, closefd=False) as stream:
        spool = Spool(pieces(stream, request.dot))
    size = header_size(spool.start, spool.whole)
    if size is None:
        raise _Failure(f"the header is longer than {len(spool.start)} bytes", NEVER)
    now = time.time()
    unique = b"%06d.%d.openqmail" % (int(now % 1 * 1_000_000), os.getpid())
    stamp = Stamp(time.gmtime(now), unique, id_host)
    made = compose(fields(spool.start[:size]), author, defaults, stamp, request.named_in_header)
    if request.sender is None and made.return_path is not None:
        sender = made.return_path
    recipients = list(dict.fromkeys([*recipients, *made.recipients]))
    if not recipients:
        raise _Failure("no recipient is named in To, Cc or Bcc", NEVER)
    ended = spool.start.startswith((b"\n", b"\r\n"), size)
    header = made.header if ended else made.header + b"\n"
    head = request_head(sender, recipients, len(header) + spool.size - size) + header
    try:
        path = os.path.join(home, "run", "submit")
        answer = client.hand_over(path, head, lambda: spool.chunks(size), client.PATIENCE, _waits)
    except client.Nobody as error:
        start = f"'openqmail --home {home} run' starts the service"
        raise _Failure(f"{error}; the message was not sent, try again later; {start}", LATER) from None
    except client.NotTaken as error:
        raise _Failure(f"{error}; the message was not sent, try again later", LATER) from None
    except client.Unknown as error:
        raise _Failure(f"{error}; the message may have been sent", LATER) from None
    except client.Closed:
        raise _closed(home, path) from None
    if answer.startswith(b"K"):
        return DONE
    raise _Failure(answer[1:].decode("ascii", "replace"), NEVER if answer.startswith(b"D") else LATER)


def _waits(why: client.NotTaken) -> None:
    """A person at a terminal is told at once; for a program there is the answer at the end."""
    if os.isatty(2):
        print(f"sendmail: {why}; waiting up to {client.PATIENCE:.0f} seconds for it", file=sys.stderr)


def _who(request: _Request, defaults: Defaults) -> tuple[Author, bytes]:
    """Who writes, and the envelope's sender, as qmail-inject(8) finds them."""
    user = _said("QMAILUSER", "MAILUSER", "USER", "LOGNAME") or _login()
    host = _said("QMAILHOST", "MAILHOST") or defaults.host
    if request.sender:
        address = resolved(request.sender, defaults)
        return Author(address or _made(user, host, defaults), request.name or b""), address
    author = Author(
        _made(user, host, defaults),
        _said("QMAILNAME", "MAILNAME", "NAME") if request.name is None else request.name,
    )
    if request.sender is not None:
        return author, b""
    return author, _made(_said("QMAILSUSER") or user, _said("QMAILSHOST") or host, defaults)


def _made(user: bytes, host: bytes, defaults: Defaults) -> bytes:
    return defaults.complete(plain(user + b"@" + host))


def _said(*names: str) -> bytes:
    """The first of these variables that is set, empty when none is."""
    for name in names:
        if value := os.environ.get(name):
            return os.fsencode(value)
    return b""


def _login() -> bytes:
    import pwd  # noqa: PLC0415  # most callers have USER or LOGNAME

    try:
        return os.fsencode(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return b"anonymous"


def _name(uid: int) -> str:
    import pwd  # noqa: PLC0415  # for a sentence

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# --- the home -----------------------------------------------------------------------------


def _home() -> str:
    """The home that OPENQMAIL_HOME names, else the one that serves, else the one that did."""
    if named := os.environ.get("OPENQMAIL_HOME"):
        return named
    for below in ("run/submit", "run"):
        for home in HOMES:
            if os.path.exists(os.path.join(home, below)):
                return home
    raise _Failure(f"there is no home in {' or '.join(HOMES)}; name one with --home DIR", LATER)


def _defaults(home: str) -> tuple[Defaults, bytes]:
    """What completes addresses, and the host of a Message-ID."""
    me = _control(home, "me", b"")
    if not me:
        raise _Failure(f"{home}/control/me: is not there or empty; 'openqmail init' makes a home", LATER)
    host, domain, plus, id_host = [
        _said("QMAIL" + name.upper()) or _control(home, name, me)
        for name in ("defaulthost", "defaultdomain", "plusdomain", "idhost")
    ]
    return Defaults(host, domain, plus), id_host


def _control(home: str, name: str, default: bytes) -> bytes:
    """The first line of a control file, without the blanks at its end (qmail-control(5))."""
    path = os.path.join(home, "control", name)
    try:
        with open(path, "rb") as opened:
            return opened.readline(1024).rstrip() or default
    except FileNotFoundError:
        return default
    except PermissionError:
        raise _closed(home, path) from None


def _closed(home: str, path: str) -> _Failure:
    """Why `path` may not be used: the home is somebody else's, or its modes are not as they should be."""
    try:
        owner = os.stat(home).st_uid
    except OSError as error:
        return _Failure(f"{home}: {error.strerror}; only who may enter it can send there", NEVER)
    if owner == os.geteuid():
        return _Failure(f"{path}: Permission denied; 'openqmail --home {home} check' has the remedy", LATER)
    more = "" if owner else f"; 'openqmail --home {home} check', as root, says what is closed to others"
    return _Failure(f"only {_name(owner)} may send in {home}{more}", NEVER)


def _failed(why: object, code: int) -> int:
    line = "".join(letter if letter.isprintable() else "?" for letter in str(why))
    print(f"sendmail: {line}", file=sys.stderr)
    return code
