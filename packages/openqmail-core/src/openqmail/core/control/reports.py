"""How the control files are written that say in what form it is told what became of mail: to its sender,
and to who asks later."""

from openqmail.core.control.definition import Definition
from openqmail.core.control.text import integer, shown, value

LARGEST = 2**40


def report_form(text: str) -> str:
    """`qmail` or `dsn`.  Raises ValueError."""
    if text not in ("qmail", "dsn"):
        raise ValueError(f"'{shown(text)}' is no form of a bounce; write qmail or dsn")
    return text


DEFINITIONS: tuple[Definition, ...] = (
    Definition(
        name="bounceformat",
        kind="the word qmail or dsn",
        default="qmail",
        readers=("smtpd", "send"),
        explanation=(
            "How senders are told what became of their mail. dsn: as RFC 3464 has it, for people and for "
            "programs, and DSN is offered to SMTP clients: they may ask to be told of a delivery, of a "
            "delay, or of nothing. qmail: a text like qmail-send's, of failures only, with the whole "
            "message; DSN is not offered. openqmail init writes dsn."
        ),
        example="dsn",
        parse=value(report_form),
    ),
    Definition(
        name="bouncemaxbytes",
        kind="a number",
        default="50000",
        readers=("send",),
        explanation=(
            "The size of a message, in bytes, up to which all of it is given back in a bounce of the form "
            "dsn; of a larger one only its header is. A sender who asks for the header alone gets no more. "
            "0: there is no limit."
        ),
        example="50000",
        parse=value(integer(0, LARGEST, "bytes")),
    ),
    Definition(
        name="historydays",
        kind="a number",
        default="14",
        readers=("send",),
        explanation=(
            "For how many days it is kept what happened to each message, for openqmail why --message. It "
            "lies in queue/history/, a file a day, at most 1 GiB in all: on a busy host that is fewer days. "
            "Nothing is written there while less than a tenth of the disk is free. 0: nothing is kept, and "
            "what has been is removed."
        ),
        example="14",
        parse=value(integer(0, 3650, "days")),
    ),
)
