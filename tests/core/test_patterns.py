"""Regular expressions mean the same in every Python that we may run on."""

import importlib
import pkgutil
import re

import openqmail.core

NOT_YET = {"POSSESSIVE_REPEAT", "ATOMIC_GROUP"}
"""New in 3.11, and wrong in it before 3.11.5 (python/cpython#106052): they let parts match that do not."""


def modules() -> list[object]:
    found = []
    for one in pkgutil.walk_packages(openqmail.core.__path__, "openqmail.core."):
        try:
            found.append(importlib.import_module(one.name))
        except ImportError:  # a part of an extra that is not installed
            continue
    return found


def operations(parsed: object) -> set[str]:
    """The names of all that a parsed pattern does."""
    if isinstance(parsed, re._parser.SubPattern):
        return set().union(*(operations(one) for one in parsed.data))
    if isinstance(parsed, list | tuple):
        return set().union(*(operations(one) for one in parsed))
    return {str(parsed)}


def test_no_pattern_has_what_some_pythons_misread() -> None:
    patterns = {
        (module.__name__, name): value
        for module in modules()
        for name, value in vars(module).items()
        if isinstance(value, re.Pattern)
    }
    assert len(patterns) > 20
    assert operations(re._parser.parse(r"(?>a)b++")) >= NOT_YET
    for place, pattern in patterns.items():
        assert not operations(re._parser.parse(pattern.pattern, pattern.flags)) & NOT_YET, place
