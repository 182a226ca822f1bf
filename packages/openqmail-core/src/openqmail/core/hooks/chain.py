"""Asks the hooks of one process, in the order of `control/hooks`; the first refusal ends a step.

What is answered at once costs no task and no turn of the loop; only a hook that waits does.  As long as
none has anything to say, which is the rule, a step is a loop over their methods and no more.
Nothing here raises.
"""

import asyncio
import inspect
from asyncio import Future
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import msgspec

from openqmail.core.hooks.body import MessageBody, wire
from openqmail.core.hooks.edits import Edits, checked
from openqmail.core.hooks.failure import FAILURES
from openqmail.core.hooks.interface import STEPS, Delivery, Place, SessionFacts
from openqmail.core.hooks.method import BROKEN, PASSED, Method, Named, Waiting
from openqmail.core.hooks.round import Examination, Message, Round
from openqmail.core.log import Log
from openqmail.core.values import Body, Decision, Defer, Envelope, Result
from openqmail.core.values.verdict import GO_ON

T = TypeVar("T")

READERS = 4
"""Threads that read bodies for us where hooks have edited them."""

_FAILED: Any = object()
"""In place of what a hook on the way out gives: it could not do its work."""


class Prepared(msgspec.Struct, frozen=True):
    """What the hooks made of a transaction's body; `failed`: one of them could not do its work."""

    body: Body
    failed: bool


class HookChain:
    """The hooks of one configuration.  `hooks`: each is a `Named`, or begins as one, in their order."""

    def __init__(self, hooks: Sequence[Named | tuple[str, object]], log: Log, place: Place = "smtpd") -> None:
        self._tasks: set[Future[Any]] = set()
        named = [one if isinstance(one, Named) else Named(*one) for one in hooks]
        self._steps = {
            step: tuple([Method(one, step, log) for one in named if hasattr(one.hook, step)])
            for step in STEPS[place]
        }

    @cached_property
    def readers(self) -> Executor:
        """Who reads for core what hooks made of a message; none keeps these threads longer than its time."""
        return ThreadPoolExecutor(READERS, "bodies")

    def has(self, step: str) -> bool:
        """Whether any hook has a say at this step; asking costs next to nothing."""
        return bool(self._steps.get(step))

    def ask(self, step: str, session: SessionFacts, *facts: Any) -> "Decision | Future[Decision]":
        """What they decide, at once where all of them answer at once."""
        hooks, given = iter(self._steps[step]), (session, *facts)
        try:
            for method in hooks:
                answer = method.call(*given)
                if answer is not None:
                    break
            else:
                return GO_ON  # what nearly all have to say
        except FAILURES as error:
            answer = method.failed(error)
        asking = Round(step, hooks, given)
        waiting = asking.go_on_with(method, answer)
        return asking.decision if waiting is None else self._start(asking.rest(waiting))

    def message(self, session: SessionFacts, envelope: Envelope, body: Body) -> "Message | Future[Message]":
        """What they decide about a whole message, and what they make of it."""
        hooks, shown, edits = iter(self._steps["message"]), MessageBody(body), None
        in_memory = body.data is not None
        try:
            for method in hooks:
                edits = Edits()
                call = method.call if in_memory else method.beside
                answer = call(session, envelope, shown, edits)
                if answer is not None or edits.any:
                    break
            else:
                return Message(GO_ON, envelope, body)
        except FAILURES as error:
            answer = method.failed(error)
        asking = Examination(hooks, session, envelope, body, edits)
        waiting = asking.go_on_with(method, answer)
        return asking.message() if waiting is None else self._start(asking.whole(waiting))

    def tell(self, step: str, *facts: Any) -> "Future[None] | None":
        """What asks for no answer (`reset`, `finished`): every hook is told.  None: all have been told."""
        hooks = iter(self._steps[step])
        waiting = _tell(hooks, facts)
        return None if waiting is None else self._start(_tell_rest(waiting, hooks, facts))

    # --- the way out --------------------------------------------------------------------

    async def forward(self, envelope: Envelope, via: bytes) -> Envelope | None:
        """The envelope of a forwarded message; None when a hook failed."""
        for method in self._steps["forward"]:
            answer = await _made(method, Envelope, method.call, envelope, via)
            if answer is _FAILED:
                return None
            if answer is None or answer is PASSED:
                continue
            try:
                checked(answer.sender)
                envelope = answer
            except (TypeError, ValueError):
                if method.senseless(answer) is BROKEN:
                    return None
        return envelope

    async def route(self, recipient: bytes, proposed: Any) -> Any:
        """By which way a recipient's mail goes (a `Route`); None when a hook failed."""
        for method in self._steps["route"]:
            answer = await _made(method, type(proposed), method.call, recipient, proposed)
            if answer is _FAILED:
                return None
            if answer is None or answer is PASSED:
                continue
            if _leads(answer):
                proposed = answer
            elif method.senseless(answer) is BROKEN:
                return None
        return proposed

    async def prepare(self, delivery: Delivery, body: Body) -> Prepared:
        """The body of a transaction, in its stored form."""
        for method in self._steps["prepare"]:
            edits = Edits()  # of this hook alone: a thread that took too long may write to it still
            call = method.call if body.data is not None else method.beside
            shown = MessageBody(wire(body), b"\r\n")
            answer = await _made(method, type(None), call, delivery, shown, edits)
            if answer is _FAILED:
                return Prepared(body, True)
            if answer is PASSED:
                continue
            try:
                body = edits.body(body, method.own)
            except FAILURES as error:  # what it gave as a new body may break in any way
                if method.failed(error) is BROKEN:
                    return Prepared(body, True)
        return Prepared(body, False)

    def finished(self, delivery: Delivery, results: tuple[Result, ...]) -> None:
        """Nobody waits for what they do with it."""
        self.tell("finished", delivery, results)

    @property
    def busy(self) -> bool:
        """Whether hooks are at work still, with what they were asked or told: who ends their loop waits."""
        return bool(self._tasks)

    # --- parts --------------------------------------------------------------------------

    def _start(self, work: "Coroutine[Any, Any, T]") -> "Future[T]":
        """In the background; nobody else may keep it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _tell(hooks: Iterator[Method], facts: tuple[Any, ...]) -> Waiting | None:
    """Tell them until one waits, or all have been told."""
    for method in hooks:
        try:
            answer = method.call(*facts)
        except FAILURES as error:
            method.failed(error)
            continue
        if answer is not None and inspect.isawaitable(answer):
            return method, answer
    return None


async def _tell_rest(waiting: Waiting | None, hooks: Iterator[Method], facts: tuple[Any, ...]) -> None:
    while waiting is not None:
        method, answer = waiting
        await method.awaited(answer)
        waiting = _tell(hooks, facts)


def _leads(route: Any) -> bool:
    """Whether a `Route` that a hook made is one in all its fields."""
    hosts, port = route.hosts, route.port
    return (
        isinstance(route.transport, str)
        and isinstance(hosts, tuple)
        and all(isinstance(host, bytes) for host in hosts)
        and isinstance(port, int)
        and 0 < port < 65536
    )


async def _made(method: Method, kind: type, call: Callable[..., Any], *facts: Any) -> Any:
    """What a hook on the way out gives, None for nothing, `PASSED` or `_FAILED`; `call`: in this thread or
    beside."""
    try:
        answer = call(*facts)
    except FAILURES as error:
        answer = method.failed(error)
    if answer is not None and inspect.isawaitable(answer):
        answer = await method.awaited(answer)
    if answer is None or answer is PASSED or isinstance(answer, kind):
        return answer
    if not isinstance(answer, Defer):
        answer = method.senseless(answer)
    return answer if answer is PASSED else _FAILED
