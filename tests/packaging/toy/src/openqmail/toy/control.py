"""A control file of the toy's own."""

from openqmail.core.control import syntax
from openqmail.core.control.definitions import Definition
from openqmail.core.control.text import value

TOYNAME = Definition(
    name="toyname",
    kind="a word",
    default="teddy",
    readers=("toy",),
    explanation="What the toy is called.",
    example="teddy",
    parse=value(syntax.word),
)
