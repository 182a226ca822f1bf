"""Where in the control files something is said: file and line, for people who ask why.

Settings keep no line numbers; whoever wants one has the file read again, by the parser that made
the settings of it, one line at a time.
"""

from openqmail.core.control.definitions import DEFINITIONS
from openqmail.core.control.home import Home
from openqmail.core.control.reader import content
from openqmail.core.control.text import ControlText


def place_of(home: Home, name: str, key: bytes = b"") -> str:
    """`control/locals line 3`; with the key, where it is a suffix or stands for all the rest.

    A file without lines that have keys is named alone, and for one that is not there whatever holds
    instead.  Raises ControlError when the file cannot be read."""
    file = f"control/{name}"
    definition = next(one for one in DEFINITIONS if one.name == name)
    found = content(home, name)
    if found is None:
        return f"control/me ({file} is not there)" if definition.default == "me" else file
    for number, line in ControlText(file, found).entries():
        value = definition.parse(ControlText(file, line.encode()))
        if isinstance(value, frozenset | dict) and key in value:
            return f"{file} line {number}{_shown(key)}"
    return file


def _shown(key: bytes) -> str:
    if not key:
        return " (all others)"
    return f" ({key.decode('utf-8', 'backslashreplace')})" if key.startswith(b".") else ""
