"""The server machine's table: what each command does in each state (RFC 5321 section 4.1.4).

An entry is the state after a positive answer, or the reply that refuses the command there
and leaves the state as it is.  A command without a row is not implemented (502), one without
an entry in its row is of no use there (503).  Replies are those of section 4.3.2, with the
enhanced codes of RFC 2034 and 3463.
"""

from enum import IntEnum

from openqmail.core.values import Reply


class State(IntEnum):
    """Where a session stands."""

    CONNECT = 0  # the greeting is not yet said
    REFUSED = 1  # greeted with 554: nothing but QUIT is of use (section 3.1)
    START = 2  # greeted, or TLS has just begun: no EHLO or HELO yet
    READY = 3  # no mail transaction
    MAIL = 4  # MAIL accepted, no recipient yet
    RCPT = 5  # at least one recipient accepted
    BODY = 6  # between 354 and the end of the message, or within a chunk
    CHUNKS = 7  # between two chunks of a message (RFC 3030)
    AUTH = 8  # between 334 and the client's answer (RFC 4954)
    TLS = 9  # between 220 and the end of the handshake (RFC 3207)
    CLOSED = 10  # nothing more will be read


class Refusal(Exception):
    """A command that cannot be obeyed; `reply` says why."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply)
        self.reply = reply


def _reply(code: int, enhanced: bytes, text: bytes) -> Reply:
    return Reply(code, enhanced, (text,))


NO_HELLO = _reply(503, b"5.5.1", b"EHLO or HELO first")
NO_MAIL = _reply(503, b"5.5.1", b"MAIL first")
NESTED = _reply(503, b"5.5.1", b"a mail transaction is already open")
NO_RECIPIENTS = _reply(554, b"5.5.1", b"no valid recipients")
NO_SERVICE = _reply(503, b"5.5.1", b"no service here, only QUIT")

BEGUN = _reply(503, b"5.5.1", b"the message has begun, only more of it by BDAT may follow, or RSET")

_GREETED = (State.START, State.READY, State.MAIL, State.RCPT, State.CHUNKS)
_SAME = {state: state for state in _GREETED}
_HELLO = dict.fromkeys(_GREETED, State.READY)

TABLE: dict[bytes, dict[State, State | Reply]] = {
    # 4.1.1.1; in a transaction it acts as RSET does (4.1.4)
    b"EHLO": {**_HELLO},
    b"HELO": {**_HELLO},
    # 4.1.1.2; never within a transaction (4.1.4)
    b"MAIL": {
        State.START: NO_HELLO,
        State.READY: State.MAIL,
        State.MAIL: NESTED,
        State.RCPT: NESTED,
        State.CHUNKS: NESTED,
    },
    # 4.1.1.3
    b"RCPT": {
        State.START: NO_HELLO,
        State.READY: NO_MAIL,
        State.MAIL: State.RCPT,
        State.RCPT: State.RCPT,
        State.CHUNKS: BEGUN,
    },
    # 4.1.1.4; the state after the message is READY, whatever became of it
    b"DATA": {
        State.START: NO_HELLO,
        State.READY: NO_MAIL,
        State.MAIL: NO_RECIPIENTS,
        State.RCPT: State.BODY,
        State.CHUNKS: BEGUN,
    },
    # RFC 3030 section 2; what was announced is swallowed before any refusal, which ends the transaction
    b"BDAT": {
        State.START: NO_HELLO,
        State.READY: NO_MAIL,
        State.MAIL: NO_RECIPIENTS,
        State.RCPT: State.BODY,
        State.CHUNKS: State.BODY,
    },
    # 4.1.1.5
    b"RSET": {
        State.START: State.START,
        State.READY: State.READY,
        State.MAIL: State.READY,
        State.RCPT: State.READY,
        State.CHUNKS: State.READY,
    },
    # 4.1.1.6, 4.1.1.8, 4.1.1.9: at any time, without effect
    b"VRFY": {**_SAME},
    b"HELP": {**_SAME},
    b"NOOP": {**_SAME},
    # 4.1.1.10
    b"QUIT": {
        State.REFUSED: State.CLOSED,
        State.START: State.CLOSED,
        State.READY: State.CLOSED,
        State.MAIL: State.CLOSED,
        State.RCPT: State.CLOSED,
        State.CHUNKS: State.CLOSED,
    },
    # RFC 3207 section 4, where it is offered
    b"STARTTLS": {
        State.START: NO_HELLO,
        State.READY: State.TLS,
        State.MAIL: NESTED,
        State.RCPT: NESTED,
        State.CHUNKS: NESTED,
    },
    # RFC 4954 section 4, where it is offered; not during a transaction
    b"AUTH": {
        State.START: NO_HELLO,
        State.READY: State.READY,
        State.MAIL: NESTED,
        State.RCPT: NESTED,
        State.CHUNKS: NESTED,
    },
    # Postfix's XCLIENT_README, where it is offered; a session of its own follows
    b"XCLIENT": {
        State.START: State.CLOSED,
        State.READY: State.CLOSED,
        State.MAIL: NESTED,
        State.RCPT: NESTED,
        State.CHUNKS: NESTED,
    },
}

# What the machine refuses by itself.
UNKNOWN = _reply(500, b"5.5.2", b"command not recognized")
NOT_IMPLEMENTED = _reply(502, b"5.5.1", b"command not implemented")
NO_ARGUMENT = _reply(501, b"5.5.4", b"this command takes no argument")
BAD_HELLO = _reply(501, b"5.5.4", b"a host name or address literal is needed")
TLS_FIRST = _reply(538, b"5.7.11", b"STARTTLS first")
BAD_AUTH = _reply(501, b"5.5.4", b"AUTH takes a mechanism and at most one initial response")
BAD_BASE64 = _reply(501, b"5.5.2", b"cannot decode that base64")
CANCELLED = _reply(501, b"5.7.0", b"authentication cancelled")
BAD_XCLIENT = _reply(501, b"5.5.4", b"XCLIENT takes attributes that were offered, each once, in xtext")
XCLIENT_LAST = _reply(503, b"5.5.1", b"nothing may be sent behind XCLIENT before its reply")
NO_MECHANISM = _reply(504, b"5.5.4", b"mechanism not offered")
AUTHENTICATED = _reply(503, b"5.5.1", b"already authenticated")

NOT_FROM = _reply(501, b"5.5.4", b"MAIL is followed by FROM:<address>")
NOT_TO = _reply(501, b"5.5.4", b"RCPT is followed by TO:<address>")
BAD_PARAMETERS = _reply(501, b"5.5.4", b"parameters are not well formed")
BAD_VALUE = _reply(501, b"5.5.4", b"a parameter has a value that it does not know")
TWICE = _reply(501, b"5.5.4", b"a parameter is given twice")
UNKNOWN_PARAMETER = _reply(555, b"5.5.4", b"parameter not recognized")
AFTER_HELO = _reply(555, b"5.5.4", b"parameters need EHLO")
NEEDS_SMTPUTF8 = _reply(553, b"5.6.7", b"a non-ASCII address needs SMTPUTF8")

TOO_MANY_RECIPIENTS = _reply(452, b"4.5.3", b"too many recipients")
TOO_LARGE = _reply(552, b"5.3.4", b"the message is over the size limit")
LONG_LINE = _reply(554, b"5.6.0", b"the message has a line over 998 octets")

# What ends the session.
BAD_CHUNK = _reply(501, b"5.5.4", b"BDAT takes a number of octets, then LAST or nothing")
OTHER_PROTOCOL = _reply(500, b"5.5.2", b"this is SMTP, not another protocol")
BARE_IN_COMMAND = _reply(500, b"5.5.2", b"bare CR, bare LF or NUL in a command")
LONG_COMMAND = _reply(500, b"5.5.2", b"command line too long")
TOO_MANY_ERRORS = _reply(421, b"4.7.0", b"too many errors")
TOO_IDLE = _reply(421, b"4.7.0", b"too many commands that lead to no mail")
TOO_MUCH_AHEAD = _reply(421, b"4.7.0", b"too much sent ahead of the replies")
TIMEOUT = _reply(421, b"4.4.2", b"timeout")
TOO_SLOW = _reply(421, b"4.4.2", b"the message comes too slowly")

STANDARD = frozenset({b"EXPN", b"TURN", b"ETRN", b"SEND", b"SOML", b"SAML"})
"""Commands of standards that are not implemented (502), against those of none (500)."""

OTHERS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI"}
)
"""Commands of HTTP: a browser that was sent here, whose body could hold commands of ours."""

HANDSHAKE = b"\x16\x03"
"""How TLS begins, where it is not expected: it may have no end of line."""

COUNTED = frozenset({500, 501, 502, 503, 504, 538, 553, 555})
"""Refusals by the machine that count as a client's errors."""
