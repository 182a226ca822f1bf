"""`openqmail upgrade`: the running service goes on as the program that is installed now.

The first process executes it anew, with the same pid and the sockets that listen; no connection
is refused.  Connections that are open end with the program they began with.  Which program that is, the
path decides by which the service was started: when it is not this one, that is said.
"""

import argparse
import os
import signal
import time

from openqmail.core.__about__ import FOLDER, __version__
from openqmail.core.commands import client
from openqmail.core.commands.command import DONE, example, needed
from openqmail.core.control.home import Home
from openqmail.core.control.owner import as_owner
from openqmail.core.values import HomeError, OpenqmailError, TemporaryFailure

help = "have the running service go on as the version that is installed now"

PATIENCE = 90.0
"""Seconds that it may take."""

_LOOK_AGAIN = 0.1


def arguments(parser: argparse.ArgumentParser) -> None:
    example(parser, "pip install --upgrade openqmail-core", "openqmail --home mail upgrade")


def run(home: Home | None, args: argparse.Namespace) -> int:
    here = needed(home)
    with as_owner(here):
        try:
            before = client.status(here)
        except client.Stopped:
            raise HomeError(f"{here.path}: no service runs; 'openqmail run' starts the new version") from None
        if before.get("state") != "serving":
            raise TemporaryFailure(
                f"{here.path}: the service is {before.get('state')}; try again in a moment"
            )
        os.kill(serving_pid(here), signal.SIGUSR2)
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(_LOOK_AGAIN)
            try:
                now = client.status(here)
            except (client.Stopped, TemporaryFailure):
                continue
            if now.get("refusals", 0) > before.get("refusals", 0):
                raise OpenqmailError(f"{here.path}: {now.get('refusal')}; the service goes on as it was")
            if now.get("state") == "serving" and _generation(now) > _generation(before):
                return _upgraded(here, now)
    raise TemporaryFailure(f"{here.path}: the service goes on as it was; its log says why")


def _upgraded(home: Home, now: dict[str, object]) -> int:
    """Raises OpenqmailError where what serves now is not what asked for it."""
    serves = now.get("version"), now.get("program", FOLDER)
    if serves != (__version__, FOLDER):
        raise OpenqmailError(
            f"{home.path}: version {serves[0]} in {serves[1]} serves anew, not this one, version "
            f"{__version__} in {FOLDER}: a service executes the path that it was started by; to change over, "
            "stop it and start it with this program"
        )
    print(f"{home.path}: version {now.get('version')} serves, process {now.get('pid')}")
    return DONE


def serving_pid(home: Home) -> int:
    """Of the first process, as its lock tells: what another process says names nobody to signal.

    Raises TemporaryFailure."""
    try:
        with open(os.path.join(home.run, "lock"), "rb") as lock:
            return int(lock.read(20))
    except (OSError, ValueError):
        raise TemporaryFailure(f"{home.run}/lock does not name the service; try again in a moment") from None


def _generation(status: dict[str, object]) -> int:
    """Of the front ends."""
    processes = status.get("processes")
    return max(
        (one.get("generation", 0) for one in processes if one.get("name") == "smtpd")
        if isinstance(processes, list)
        else (0,),
        default=0,
    )
