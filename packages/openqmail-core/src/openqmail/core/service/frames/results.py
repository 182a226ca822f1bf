"""How the result of a delivery crosses, and the results that only a border between processes has.

The words for a process that was lost are qmail-rspawn's and qmail-lspawn's for a program that
crashed: nobody knows how far it came.
"""

from typing import Final, Literal

from openqmail.core.values import Outcome, Result

Letter = Literal["K", "Z", "D"]
"""An outcome, as qmail's spawn protocol writes it."""

LETTERS: Final[dict[Outcome, Letter]] = {Outcome.SUCCESS: "K", Outcome.DEFERRAL: "Z", Outcome.FAILURE: "D"}
OUTCOMES: Final[dict[Letter, Outcome]] = {letter: outcome for outcome, letter in LETTERS.items()}

REMOTE_LOST: Final = Result(Outcome.DEFERRAL, b"qmail-remote crashed.\n")
LOCAL_SILENT: Final = Result(Outcome.DEFERRAL, b"qmail-local does not answer. (#4.3.0)\n")
LOCAL_LOST: Final = Result(Outcome.DEFERRAL, b"qmail-local crashed.\n")
STOPPED: Final = Result(Outcome.DEFERRAL, b"Sorry, this service is about to end. (#4.3.2)\n")
BROKE: Final = Result(Outcome.DEFERRAL, b"The delivery broke. (#4.3.0)\n")
UNREADABLE: Final = Result(Outcome.DEFERRAL, b"Unable to read message. (#4.3.0)\n")
TOO_LARGE: Final = Result(Outcome.DEFERRAL, b"The envelope is too large to be handed on. (#4.3.0)\n")
