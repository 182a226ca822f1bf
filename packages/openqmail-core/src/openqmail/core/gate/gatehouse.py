"""The gate, and who knows the users, put together: the same in a process of its own and in one that does
everything.  What keeps logins from being judged is an alert, the same one no more than once in
`TELL_AGAIN` seconds: strangers shall not fill the log with it."""

from collections.abc import Callable

from openqmail.core.control.home import Home
from openqmail.core.control.logins import Logins
from openqmail.core.control.settings import Settings
from openqmail.core.control.smtpauth import path_of
from openqmail.core.gate.authentication import Authentication
from openqmail.core.gate.back_ends import BackEnds
from openqmail.core.gate.guard import Guard
from openqmail.core.gate.local import LocalGate, limits_of
from openqmail.core.log import Alert, Log, Seldom
from openqmail.core.ports.logins import LoginChecks
from openqmail.core.world import Clock

TELL_AGAIN = 60.0


class Gatehouse:
    """`gate` is what serves the port.  Needs a running loop; `checks` stays its owner's."""

    def __init__(self, home: Home, settings: Settings, checks: LoginChecks, clock: Clock, log: Log) -> None:
        self._clock = clock
        self._log = log
        self._seldom = Seldom(TELL_AGAIN)
        self._back_ends = BackEnds(Logins(path_of(home)), checks, self._alert)
        self._back_ends.reconfigure(settings)
        self._guard = Guard(settings.authfailures)
        self._authentication = Authentication(self._back_ends, self._guard, clock, log)
        self.gate = LocalGate(limits_of(settings), clock, self._authentication)

    async def start(self, changed: Callable[[], None] = lambda: None) -> None:
        """See who may log in, and look again now and then.  `changed` is called when the mechanisms by which
        somebody can are others."""
        self._authentication.changed = changed
        await self._authentication.start()

    def reconfigure(self, settings: Settings) -> None:
        """What is leased, spent or locked stays so."""
        self.gate.reconfigure(limits_of(settings))
        self._guard.reconfigure(settings.authfailures)
        self._back_ends.reconfigure(settings)
        self._authentication.changed()

    async def close(self) -> None:
        await self._authentication.close()

    def _alert(self, sentence: str) -> None:
        if self._seldom.may_say(sentence, self._clock.monotonic()):
            self._log(Alert(sentence))
