"""The version of this distribution; `nox -s bump -- X.Y.Z` sets it in all of them."""

__version__ = "0.1.0"
