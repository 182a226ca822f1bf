"""Are the docs true?  Links lead somewhere, commands exist, generated pages are current.

Looks at every Markdown file of the house and at docs/man.  Prints each fault as FILE:LINE and
ends with 1 when there is one.
"""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import figures
import security

from openqmail.core.commands import manual
from openqmail.core.commands.line import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
MAN = ROOT / "docs" / "man"
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s#]+)(?:#[^)]*)?\)")
_NAMED = r"(?:\./nox|openqmail)\b[^`\n]*"
_COMMAND = re.compile(rf"`({_NAMED})")
_SHOWN = re.compile(rf"\s*(?:\$ )?({_NAMED})")
_SESSION = re.compile(r"-s ([a-z0-9.-]+)")


def pages() -> list[Path]:
    """Every Markdown file that is ours."""
    found = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.split()
    return [ROOT / name for name in found if (ROOT / name).exists()]


def links(page: Path) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(page.read_text().splitlines(), 1):
        for target in _LINK.findall(line):
            if (
                "://" not in target
                and not target.startswith("mailto:")
                and not (page.parent / target).exists()
            ):
                yield number, f"the link to {target} leads nowhere"


def shown(page: Path) -> Iterator[tuple[int, str]]:
    """Commands in backticks, and those that begin a line of code."""
    fenced = False
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or line.startswith("    "):
            if match := _SHOWN.match(line):
                yield number, match[1]
        else:
            for command in _COMMAND.findall(line):
                yield number, command


def commands(page: Path, sessions: set[str]) -> Iterator[tuple[int, str]]:
    for number, text in shown(page):
        command = text.split("#")[0].strip()
        if command.startswith("./nox"):
            for one in set(_SESSION.findall(command)) - sessions:
                yield number, f"there is no session {one}"
        elif (word := subcommand(command)) and word not in COMMANDS:
            yield number, f"openqmail has no command {word}"


def subcommand(command: str) -> str:
    """The word behind the options of `openqmail`; empty where there is none."""
    try:
        words = shlex.split(command)[1:]
    except ValueError:
        words = command.split()[1:]
    while words and words[0].startswith("-"):
        words = words[2:] if words[0] == "--home" else words[1:]
    return words[0] if words and re.fullmatch(r"[a-z]+", words[0]) else ""


def generated() -> Iterator[str]:
    for name, text in manual.pages().items():
        page = MAN / name
        if not page.exists() or page.read_text() != text:
            yield f"docs/man/{name} is not current: python -m openqmail.core.commands.manual docs/man"
    if security.stale():
        yield "docs/security.md is not current: python tests/docs/security.py"
    if figures.stale():
        yield "docs/metrics.md is not current: python tests/docs/figures.py"


def main() -> int:
    noxfile = (ROOT / "noxfile.py").read_text()
    sessions = set(re.findall(r"^def ([a-z_]+)\(session", noxfile, re.MULTILINE))
    sessions |= set(re.findall(r'session\(name="([a-z-]+)"', noxfile))
    sessions |= {f"tests-core-{version}" for version in re.findall(r'"(3\.\d+)"', noxfile)}
    faults = list(generated())
    looked = pages()
    for page in looked:
        for line, what in (*links(page), *commands(page, sessions)):
            faults.append(f"{page.relative_to(ROOT)}:{line}: {what}")
    print("\n".join(faults) or f"{len(looked)} pages: links, commands and manual pages are true")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
