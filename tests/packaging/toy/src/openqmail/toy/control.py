"""Control files of the toy's own."""

from openqmail.core.control import syntax
from openqmail.core.control.definitions import Definition
from openqmail.core.control.text import sequence, shown, value

TOYNAME = Definition(
    name="toyname",
    kind="a word",
    default="teddy",
    readers=("toy",),
    explanation="What the toy is called.",
    example="teddy",
    parse=value(syntax.word),
)


def plugin(text: str) -> tuple[str, tuple[bytes, ...]]:
    """`STEP PATH ARGUMENT...`"""
    step, *argv = text.split()
    if not argv:
        raise ValueError(f"'{shown(text)}' is no plugin; write one like: rcpt /bin/true")
    return step, tuple(word.encode() for word in argv)


TOYPLUGINS = Definition(
    name="toyplugins",
    kind="a list of plugins",
    default="",
    readers=("toy",),
    explanation="Programs that toy-plugins runs: a step, a path, arguments.",
    example="rcpt /bin/true",
    parse=sequence(plugin),
)

TOYFILTER = Definition(
    name="toyfilter",
    kind="a path",
    default="/nowhere",
    readers=("toy",),
    explanation="The Unix socket of the filter that toy-milter asks.",
    example="/run/filter",
    parse=value(str),
)

TOYLIMIT = Definition(
    name="toylimit",
    kind="a number",
    default="100",
    readers=("toy",),
    explanation="Recipients an hour that toy-limiter takes from one address.",
    example="100",
    parse=value(int),
)

DEFINITIONS = (TOYNAME, TOYPLUGINS, TOYFILTER, TOYLIMIT)
