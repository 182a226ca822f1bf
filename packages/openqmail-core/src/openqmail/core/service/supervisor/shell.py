"""The first process of a service: what its machine asks for, done with forks, sockets and signals.

It has no loop and no thread, parses no mail and touches none.  TERM and INT end the service (again:
at once), HUP takes new settings, USR2 goes on with the program as it is installed now, ALRM has
everything tried.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import get_args

from openqmail.core.control.accounts import find_accounts
from openqmail.core.control.home import Home
from openqmail.core.control.settings import Settings
from openqmail.core.log import Alert, LogWriter, Notice
from openqmail.core.service import sockets
from openqmail.core.service.confine import walls_of
from openqmail.core.service.frames import supervision as said
from openqmail.core.service.frames.codec import FrameError
from openqmail.core.service.lock import HomeLock
from openqmail.core.service.processes.forking import give_back_files
from openqmail.core.service.processes.process import Inherited
from openqmail.core.service.status import serving
from openqmail.core.service.supervisor import machine as mind
from openqmail.core.service.supervisor.children import start
from openqmail.core.service.supervisor.counting import Totals
from openqmail.core.service.supervisor.ground import Ground
from openqmail.core.service.supervisor.legacy import Legacy, try_installed
from openqmail.core.service.supervisor.manager import Manager
from openqmail.core.service.supervisor.running import Running, how, processes
from openqmail.core.service.supervisor.signals import Signals
from openqmail.core.service.watch import CHANGED, Watch
from openqmail.core.values import OpenqmailError, TemporaryFailure
from openqmail.core.world import Clock

_LATER = 111
"""The exit code for what trying again may help."""
_LAST_WORDS = 16
"""Reads of what a child that is no more has said: all that fits into its socket."""
_UNHEARD = "does not read what it is told"


class Supervisor:
    """Of one home, whose lock is held.  `run` returns the exit code when all have ended."""

    def __init__(
        self,
        home: Home,
        settings: Settings,
        lock: HomeLock,
        clock: Clock,
        log: LogWriter,
        salvage: bool,
        legacy: Legacy | None,
    ) -> None:
        self._home, self._lock, self._clock, self._log = home, lock, clock, log
        self._ground = Ground(home, settings, int(clock.now()))
        self._signals = Signals()
        self._salvage = salvage
        self._legacy = legacy
        self._accounts = find_accounts(home)
        self._walls = {role: walls_of(role, home) for role in get_args(mind.Role)}  # once, for all forks
        self._since = legacy.since if legacy else int(clock.now())
        self._children: dict[int, Running] = {}
        self._machine = mind.Machine(settings.smtpdworkers, metrics=bool(settings.metrics))
        self._totals = Totals()
        self._wakes: list[float] = []
        self._watch = Watch(home.control, time.monotonic())
        self._manager = Manager(os.environ)
        self._note = ""
        self._failed = ""
        self._code = 0
        self._ended = False
        self._serves = False
        self._settled = False
        """The queue's process has ended well, for good."""
        self._reload_later = False
        self._why = ""
        """What the front end that tries new settings has said against them."""
        self._upgrade_later = False
        self._refusals, self._refusal = 0, ""
        """How many upgrades were refused, and why the last one was."""

    def run(self) -> int:
        """Raises OpenqmailError where it cannot serve."""
        if self._legacy:
            self._ground.inherit(self._legacy)
        else:
            self._ground.bind(self._manager)
        self._signals.listen()
        if self._legacy:
            self._adopt(self._legacy)
        self._do(self._machine.begin(time.monotonic()))
        if self._legacy:
            self._do(self._machine.hand_over(time.monotonic()))
        while not self._ended:
            self._turn()
        signal.set_wakeup_fd(-1)
        self._stop_listening()
        sockets.unlink_local(self._home, "admin")
        if self._failed:
            raise (TemporaryFailure if self._code == _LATER else OpenqmailError)(self._failed)
        if not self._settled and not self._code:
            self._say(Notice("the queue was not closed; 'openqmail queue settle' moves what its journal has"))
            self._code = 111
        return self._code

    # --- one turn -----------------------------------------------------------------------

    def _turn(self) -> None:
        now = time.monotonic()
        wait = min([self._watch.wait(now), *(max(0.0, when - now) for when in self._wakes)])
        channels = {
            running.channel.fileno(): number
            for number, running in self._children.items()
            if not running.silent
        }
        with suppress(InterruptedError):
            readable = select.select([self._signals.fileno(), *channels], (), (), wait)[0]
            for number in [channels[one] for one in readable if one in channels]:
                running = self._children.get(number)
                if running is not None and (fault := self._hear(number, running)):
                    self._give_up(running, fault)
        for number in self._signals.take():
            self._signalled(number)
        now = time.monotonic()
        if self._wakes and min(self._wakes) <= now:
            self._wakes = [when for when in self._wakes if when > now]
            self._do(self._machine.wake(now))
        if self._watch.changed(now) and self._machine.state == "serving":
            self._say(Notice(CHANGED))
            self._reload()

    def _signalled(self, number: int) -> None:
        now = time.monotonic()
        if number == signal.SIGCHLD:
            self._reap()
        elif number in (signal.SIGTERM, signal.SIGINT):
            self._stop_listening()
            self._do(self._machine.terminate(now))
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGALRM:
            for running in self._children.values():
                if running.role == "send":
                    self._send(running, said.Flush())
        elif number == signal.SIGUSR2:
            self._upgrade()

    def _stop_listening(self) -> None:
        self._manager.tell("STOPPING=1")
        self._ground.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            number = next((one for one, running in self._children.items() if running.pid == pid), None)
            if number is not None:
                self._gone(number, os.waitstatus_to_exitcode(status))

    def _gone(self, number: int, code: int) -> None:
        """Its pid may be another's by now."""
        running = self._children[number]
        for _ in range(_LAST_WORDS):
            if running.silent or self._hear(number, running):
                break
        del self._children[number]
        running.channel.close()
        child = self._machine.children.get(number)
        expected = child is not None and child.state == "leaving"
        if number == self._machine.trial:
            expected, self._why = True, self._why or f"{running.role} ended at its start{how(code)}"
        if running.role == "send" and self._machine.state == "draining":
            self._settled = code == 0
            self._code = self._code or max(code, 0)
        if self._machine.state == "starting" and not self._legacy and not expected:
            self._code = self._code or 111
            self._failed = self._failed or f"{running.role} ended at its start{how(code)}"
        elif not expected and self._machine.state != "draining":
            self._say(Alert(f"{running.role}, pid {running.pid}, ended{how(code)}; it is started anew"))
        self._do(self._machine.ended(number, time.monotonic()))

    def _hear(self, number: int, running: Running) -> str:
        """What has come; returns why it must be ended."""
        try:
            heard = running.channel.receive()
        except FrameError as error:
            return f"is not understood: {error}"
        running.silent = heard is None
        asked: list[Callable[[], said.ToChild]] = []
        for message, _ in heard or ():
            if isinstance(message, said.Ready):
                if running.role == "send":
                    self._note, self._salvage = message.note, False  # that was for this one opening
                self._do(self._machine.ready(number, time.monotonic()))
            elif isinstance(message, said.Failed):
                if number == self._machine.trial:
                    self._why = message.why
                elif self._serves:
                    self._say(Alert(f"{running.role}, pid {running.pid}: {message.why}"))
                else:
                    self._failed, self._code = message.why, message.code
            elif isinstance(message, said.Work):
                running.work = message.count
            elif isinstance(message, said.Workers):
                running.workers = message.workers
            elif isinstance(message, said.Counted):
                self._totals.take(running, message)
            else:  # one answer is for all who ask there
                asked = [self._figures if isinstance(message, said.AskFigures) else self._state]
        for answer in asked:
            running.channel.send(answer())
        return _UNHEARD if running.channel.stalled else ""

    def _send(self, running: Running, message: said.ToChild, descriptors: tuple[int, ...] = ()) -> None:
        if not running.channel.send(message, descriptors) and running.channel.stalled:
            self._give_up(running, _UNHEARD)

    def _give_up(self, running: Running, fault: str) -> None:
        """Nothing more can be said to it or heard of it: it is started anew when it has ended."""
        if not running.given_up:
            running.given_up = True
            self._say(Alert(f"{running.role}, pid {running.pid}, {fault}; ended"))
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)

    # --- what the machine asks for --------------------------------------------------------

    def _do(self, actions: list[mind.Action]) -> None:
        for action in actions:
            _ACTIONS[type(action)](self, action)

    def _start(self, action: mind.Start) -> None:
        settings, bound, read = self._ground.for_child(action.trial)
        inherited = Inherited(
            self._home,
            settings,
            self._accounts,
            action.generation,
            bound,
            self._ground.admin,
            self._ground.submit,
            self._salvage,
            read,
        )
        self._log.flush()
        try:
            self._children[action.child] = start(action.role, inherited, self._walls[action.role])
        except OSError as error:
            self._not_started(action, error)

    def _not_started(self, action: mind.Start, error: OSError) -> None:
        """The system has no room for a process just now: as if it had died at once."""
        why = f"{action.role} cannot be started: {error.strerror or error}"
        if action.trial:
            self._why = why
        elif self._serves:
            self._say(Alert(f"{why}; trying again"))
        else:
            self._failed, self._code = self._failed or why, 111
        self._do(self._machine.ended(action.child, time.monotonic()))

    def _link(self, action: mind.Link) -> None:
        client, server = self._children.get(action.client), self._children.get(action.server)
        if client is None or server is None:  # it could not be started
            return
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            who = f"{client.role}, pid {client.pid}, cannot be introduced to {server.role}"
            self._say(Alert(f"{who}: {error.strerror or error}; trying again"))
            self._do(self._machine.not_linked(action, time.monotonic()))
            return
        with ours, theirs:
            self._send(client, said.Peer(action.port), (ours.fileno(),))
            self._send(server, said.Peer(action.port), (theirs.fileno(),))

    def _tell(self, action: mind.Tell) -> None:
        running = self._children.get(action.child)
        if running is not None:
            words: dict[str, Callable[[], said.ToChild]] = {
                "leave": lambda: said.Leave(action.seconds),
                "handover": said.Handover,
                "reload": said.Reload,
                "hurry": said.Hurry,
            }
            self._send(running, words[action.word]())

    def _kill(self, action: mind.Kill) -> None:
        running = self._children.get(action.child)
        if running is not None:
            self._say(Alert(f"{running.role}, pid {running.pid}, does not end; killed"))
            with suppress(ProcessLookupError):
                os.kill(running.pid, signal.SIGKILL)

    def _wake_at(self, action: mind.WakeAt) -> None:
        self._wakes.append(action.time)

    def _serving(self, action: mind.Serving) -> None:
        self._serves = True
        if action.again:
            self._say(Notice("took the new settings"))
        else:
            line = serving(self._home, self._ground.listen, os.getpid(), self._note)
            self._say(Notice(f"upgraded: {line}" if self._legacy else line))
        self._legacy = None
        self._manager.tell("READY=1")
        give_back_files()
        if self._reload_later:
            self._reload()

    def _all_ended(self, action: mind.Ended) -> None:
        self._ended = True

    # --- settings, upgrades ----------------------------------------------------------------

    def _reload(self) -> None:
        """All of the new settings, or none of them."""
        self._reload_later = self._machine.state == "starting"
        if self._machine.state != "serving":
            return
        self._manager.reloading()
        try:
            settings = self._ground.attempt(self._log, self._clock)
        except Exception as error:  # whatever it is: nothing that is tried ends what serves
            why = str(error) if isinstance(error, OpenqmailError) else repr(error)
            self._say(Alert(f"the settings stay as they were: {why}"))
            self._manager.tell("READY=1")
            return
        self._why = ""
        now, metrics = time.monotonic(), bool(settings.metrics)
        self._do(self._machine.reload(settings.smtpdworkers, now, metrics=metrics))

    def _taken(self, action: mind.Taken) -> None:
        self._ground.take()
        self._log.form = self._ground.settings.logformat
        self._tried()

    def _refused(self, action: mind.Refused) -> None:
        self._say(Alert(f"the settings stay as they were: {self._why}"))
        self._ground.refuse()
        self._manager.tell("READY=1")
        self._tried()

    def _tried(self) -> None:
        if self._upgrade_later:
            self._upgrade_later = False
            os.kill(os.getpid(), signal.SIGUSR2)

    def _upgrade(self) -> None:
        """Go on as the program that is installed now, with the same pid, sockets and children."""
        if self._machine.state != "serving":
            return
        self._upgrade_later = bool(self._machine.trial)  # the next one is to have what is bound anew
        if self._upgrade_later:
            return
        states = {number: child.state for number, child in self._machine.children.items()}
        children = [
            one.left(number, states[number]) for number, one in self._children.items() if number in states
        ]
        self._log.flush()
        legacy = self._ground.left(self._since, self._machine.generation, self._lock.fileno(), children)
        if why := try_installed(self._home.path, legacy):
            self._not_upgraded(f"the program that is installed does not start: {why}")
            return
        self._signals.keep()
        why = legacy.leave()
        self._signals.let()
        self._not_upgraded(why)

    def _not_upgraded(self, why: str) -> None:
        self._refusals, self._refusal = self._refusals + 1, why
        self._say(Alert(f"{why}; going on with this one"))

    def _adopt(self, legacy: Legacy) -> None:
        now = time.monotonic()
        for one in legacy.children:
            self._children[one.number] = Running.adopted(one)
            child = mind.Child(one.number, one.role, one.generation, one.state, now)
            self._machine.children[one.number] = child
        self._machine.adopt(list(self._machine.children.values()), legacy.generation, now)
        self._serves = True
        self._reap()

    # --- parts ------------------------------------------------------------------------------

    def _state(self) -> said.State:
        return said.State(
            self._machine.state,
            os.getpid(),
            self._since,
            self._ground.listen,
            processes(self._children.values()),
            self._refusals,
            self._refusal,
        )

    def _figures(self) -> said.Figures:
        return self._totals.figures(self._children.values(), self._since)

    def _say(self, event: Alert | Notice) -> None:
        self._log(event)


_ACTIONS: dict[type, Callable[..., None]] = {
    mind.Start: Supervisor._start,
    mind.Link: Supervisor._link,
    mind.Tell: Supervisor._tell,
    mind.Kill: Supervisor._kill,
    mind.WakeAt: Supervisor._wake_at,
    mind.Serving: Supervisor._serving,
    mind.Taken: Supervisor._taken,
    mind.Refused: Supervisor._refused,
    mind.Ended: Supervisor._all_ended,
}
