"""The manual pages, made from what they describe: the command line and the definitions.

`python -m openqmail.core.commands.manual DIR` writes openqmail.1, openqmail-control.5, sendmail.8,
qmail-tcpto.8 and qmail-tcpok.8 there.  They carry neither date nor version, so that they change only
with what they say.
"""

import argparse
import os
import sys
from collections.abc import Iterator

from openqmail.core.commands import sendmail
from openqmail.core.commands.line import build_parser, core_commands
from openqmail.core.control.definition import Definition
from openqmail.core.control.definitions import DEFINITIONS
from openqmail.core.control.pem import PEM, PemDefinition

_EXITS = (
    ("0", "done, of several things at least one; for status: the service serves"),
    ("1", "there is nothing of the name or number that was given"),
    ("100", "cannot: misuse, or something to be mended first; the message says what"),
    ("111", "not now: try later"),
)


def pages() -> dict[str, str]:
    """Every page by the name of its file."""
    return {
        "openqmail.1": _command_page(),
        "openqmail-control.5": _control_page(),
        "sendmail.8": _sendmail_page(),
        "qmail-tcpto.8": _silence_page(
            "qmail-tcpto", "show which addresses were silent", _TCPTO, "qmail-tcpok"
        ),
        "qmail-tcpok.8": _silence_page(
            "qmail-tcpok", "forget which addresses were silent", _TCPOK, "qmail-tcpto"
        ),
    }


def _command_page() -> str:
    parser = build_parser(core_commands())
    lines = _head("OPENQMAIL", 1, "openqmail", "a mail transfer agent in the tradition of qmail")
    lines += [".SH SYNOPSIS", f".B openqmail\n{_usage(parser)}"]
    lines += [
        ".SH DESCRIPTION",
        _text(
            "openqmail makes a home, serves it, and looks after it. A home is a folder with the control "
            "files, the queue and the mailboxes; it is named by --home or by OPENQMAIL_HOME. "
            "In a home of root's each process has a user of its own; any other runs whole as its owner."
        ),
        ".SH OPTIONS",
        *_options(parser),
        ".SH COMMANDS",
    ]
    for name, below in _below(parser):
        lines += _command(name, below)
    lines.append(".SH EXIT STATUS")
    for code, meaning in _EXITS:
        lines += [".TP", f".B {code}", _text(meaning)]
    lines += [".SH ENVIRONMENT", ".TP", ".B OPENQMAIL_HOME", "The home when \\-\\-home is not given."]
    lines += [".SH SEE ALSO", ".BR openqmail\\-control (5),", ".BR sendmail (8)"]
    return "\n".join(lines) + "\n"


def _control_page() -> str:
    lines = _head("OPENQMAIL-CONTROL", 5, "openqmail-control", "the control files of openqmail")
    lines += [
        ".SH DESCRIPTION",
        _text(
            "The control files are in the folder control of a home, a file a setting. A file of one value "
            "has it in its first line. In a list, empty lines and lines that begin with # are passed over. "
            "Blanks at the end of a line never count. A value that does not parse stops a start; "
            "'openqmail control check' names the file, the line and the remedy. They are read at the start "
            "and on a HUP."
        ),
        ".SH FILES",
    ]
    for definition in sorted(DEFINITIONS, key=lambda one: one.name):
        lines += _definition(definition)
    lines += [".SH CERTIFICATES", "openqmail tls show tells what is in those in PEM, but for the keys."]
    for pem in PEM:
        lines += _pem(pem)
    lines += [".SH SEE ALSO", ".BR openqmail (1)"]
    return "\n".join(lines) + "\n"


_SENDMAIL_EXITS = (
    ("0", "the message is in the queue, on the disk"),
    ("100", "cannot: misuse, or a message that is refused; the sentence on standard error says why"),
    ("111", "not now: try later; the sentence says when the message may have been sent all the same"),
)
_SENDMAIL_ENVIRONMENT = (
    ("OPENQMAIL_HOME", "the home, when --home is not given"),
    ("QMAILUSER, MAILUSER, USER, LOGNAME", "who writes, the first that is set; else the login name"),
    ("QMAILHOST, MAILHOST", "the host behind it; else control/defaulthost"),
    ("QMAILNAME, MAILNAME, NAME", "the name for people, without -F and -f"),
    ("QMAILSUSER, QMAILSHOST", "the envelope's sender, where it is another"),
    (
        "QMAILDEFAULTHOST, QMAILDEFAULTDOMAIN, QMAILPLUSDOMAIN, QMAILIDHOST",
        "take the place of the control files of the same name",
    ),
)


def _sendmail_page() -> str:
    lines = _head("SENDMAIL", 8, "sendmail", "send a message by the service of this host")
    lines += [".SH SYNOPSIS", f".B {_escaped(sendmail.USAGE.removeprefix('usage: '))}", ".SH DESCRIPTION"]
    lines += [
        _text(
            "reads a message from standard input, makes its header whole, and hands it to the "
            "service over the socket run/submit of the home. It is no privileged program: the system tells "
            "the service who calls. The home is --home, OPENQMAIL_HOME, /var/qmail or /etc/openqmail."
        ),
        ".PP",
        _text(
            "While the service restarts it waits, up to 60 seconds. It sends a message again only when the "
            "service cannot have taken it."
        ),
        ".PP",
        _text(
            "Date, Message-ID and From are put in where they are missing; of a resent message, which has "
            "any Resent- field, their Resent- twins. Bcc, Resent-Bcc, Return-Path and Content-Length are "
            "taken out. An address without a host gets control/defaulthost, a host without a dot "
            "control/defaultdomain, one that ends with + control/plusdomain. Recipients are the arguments "
            "and, with -t, those of the header. The envelope's sender is -f, else Return-Path, else whoever "
            "writes."
        ),
        ".PP",
        _text(
            "Without -i a line that is only a dot ends the message. A message whose lines all end with CRLF "
            "is taken as text; one that mixes line ends keeps them, and cannot be sent to other hosts."
        ),
        ".SH OPTIONS",
    ]
    for option, text in sendmail.OPTIONS:
        lines += [".TP", f".B {_escaped(option)}", _text(text)]
    lines.append(".SH EXIT STATUS")
    for code, meaning in _SENDMAIL_EXITS:
        lines += [".TP", f".B {code}", _text(meaning)]
    lines.append(".SH ENVIRONMENT")
    for names, meaning in _SENDMAIL_ENVIRONMENT:
        lines += [".TP", f".B {names}", _text(meaning)]
    lines += [".SH SEE ALSO", ".BR openqmail (1),", ".BR openqmail\\-control (5)"]
    return "\n".join(lines) + "\n"


def _pem(pem: PemDefinition) -> list[str]:
    text = _text(f"{pem.kind}. {pem.explanation}")
    lines = [".TP", f".B {_escaped(pem.name)}", text, ".RS", _text(f"Without it: {pem.without}.")]
    return [*lines, _text(f"Read by: {', '.join(pem.readers)}."), ".RE"]


_TCPTO = (
    "prints a line for each address that did not answer when mail was to go there: how many seconds ago "
    "that was for the last time, and how often, two minutes or more apart. An address that was silent twice "
    "is left alone for 64 to 97 minutes. One that answers has no line.",
    "When the table cannot be read, the reason stands on standard output, as with qmail.",
)
_TCPOK = (
    "empties the table of addresses that did not answer, so that all of them are tried again. A service that "
    "runs heeds it at once. Mail that waits has its own time; 'openqmail queue flush' has it tried now.",
    "IPv6 addresses do not fit into qmail's table and stand behind it in the same file; the program of that "
    "name of another qmail does not clear them.",
)


def _silence_page(name: str, what: str, paragraphs: tuple[str, ...], other: str) -> str:
    lines = _head(name.upper(), 8, name, what)
    lines += [".SH SYNOPSIS", f".B {_escaped(name)} [\\-\\-home DIR]", ".SH DESCRIPTION"]
    for number, paragraph in enumerate(paragraphs):
        lines += [".PP", _text(paragraph)] if number else [_text(paragraph)]
    lines += [
        ".PP",
        _text(
            "The table is the file queue/lock/tcpto of the home, in qmail's form. The home is --home, "
            "OPENQMAIL_HOME, /var/qmail or /etc/openqmail. Root may run this, and whoever owns the queue."
        ),
        ".SH EXIT STATUS",
    ]
    for code, meaning in (("0", "done"), ("100", "misuse"), ("111", "the table cannot be had")):
        lines += [".TP", f".B {code}", _text(meaning)]
    lines += [".SH SEE ALSO", f".BR {_escaped(other)} (8),", ".BR openqmail (1)"]
    return "\n".join(lines) + "\n"


def _definition(definition: Definition) -> list[str]:
    default = {None: "none; the file has to be there", "": "empty", "me": "the content of control/me"}
    lines = [".TP", f".B {_escaped(definition.name)}", _text(f"{definition.kind}. {definition.explanation}")]
    lines.append(".RS\n.PP")
    lines.append(_text(f"Default: {default.get(definition.default, definition.default)}."))
    lines.append(_text(f"Read by: {', '.join(definition.readers)}."))
    return [*lines, *_example(definition.example.split("\n")), ".RE"]


def _command(name: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield ".TP"
    yield f".B {_escaped(name)}\n{_usage(parser)}\n.br"
    yield _text(parser.description or "")
    yield ".RS"
    yield from _options(parser)
    for verb, below in _below(parser):
        yield ".TP"
        yield f".B {_escaped(verb)}\n{_usage(below)}\n.br"
        yield _text(_help_of(parser, verb))
        yield ".RS"
        yield from _options(below)
        yield ".RE"
    if parser.epilog:
        yield from _example([line.strip() for line in parser.epilog.split("\n")[1:]])
    yield ".RE"


def _usage(parser: argparse.ArgumentParser) -> str:
    """The arguments in short; written here, for argparse's own form differs between versions."""
    words = []
    for action in parser._actions:
        metavar = str(action.metavar or action.dest)
        if isinstance(action, argparse._HelpAction):
            continue
        if not action.option_strings:
            many = {"+": f"{metavar}...", "*": f"[{metavar}...]"}.get(str(action.nargs), metavar)
            words.append(many if action.required or action.nargs == "*" else f"[{metavar}]")
            continue
        word = action.option_strings[-1] + ("" if action.nargs == 0 else f" {metavar}")
        repeated = "..." if isinstance(action, argparse._AppendAction) else ""
        words.append((word if action.required else f"[{word}]") + repeated)
    return _escaped(" ".join(words))


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction | argparse._SubParsersAction) or not action.help:
            continue
        metavar = str(action.metavar or action.dest)
        named = " ".join(action.option_strings) or metavar
        if action.option_strings and action.nargs != 0:
            named += f" {metavar}"
        yield ".TP"
        yield f".B {_escaped(named)}"
        yield _text(action.help)


def _below(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.items()


def _help_of(parser: argparse.ArgumentParser, verb: str) -> str:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                if choice.dest == verb:
                    return choice.help or ""
    return ""


def _head(title: str, section: int, name: str, what: str) -> list[str]:
    return [f'.TH {title} {section} "" openqmail', ".SH NAME", f"{_escaped(name)} \\- {what}"]


def _example(lines: list[str]) -> list[str]:
    return [".PP", ".nf", *(_line(line) for line in lines), ".fi"]


def _text(text: str) -> str:
    whole = text[:1].upper() + text[1:]
    return _line(whole if whole.endswith((".", "?", "!")) else whole + ".")


def _line(text: str) -> str:
    escaped = _escaped(text)
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped


def _escaped(text: str) -> str:
    return text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq")


def main(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    for name, content in pages().items():
        with open(os.path.join(folder, name), "w", encoding="utf-8") as opened:
            opened.write(content)


if __name__ == "__main__":
    main(sys.argv[1])
