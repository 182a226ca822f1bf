"""The version of this distribution; `nox -s bump -- X.Y.Z` sets it in all of them.  And where it is."""

import os

__version__ = "0.1.0"

FOLDER = os.path.dirname(os.path.realpath(__file__))
"""Of this program, as it was when it was started: a link on the way may lead elsewhere by now."""
