"""Asks the hooks, in order; a hook that fails or takes too long defers, and the log says so."""

import asyncio
import inspect
from collections.abc import Sequence
from typing import Any

from openqmail.core.control import extensions
from openqmail.core.control.settings import Settings
from openqmail.core.hooks.interface import STEPS, HookContext, Refuse
from openqmail.core.log import Alert, Log
from openqmail.core.values import Reply
from openqmail.core.world import Clock

TIMEOUT = 60.0
"""Seconds that one hook may take for one step."""

_BROKEN = Reply(451, b"4.3.0", (b"a check of ours failed; try again later",))


class HookChain:
    """The hooks of one configuration.  `hooks`: (name, hook), in the order of asking."""

    def __init__(self, hooks: Sequence[tuple[str, object]], log: Log) -> None:
        self._log = log
        self._steps = {
            step: [(name, getattr(hook, step)) for name, hook in hooks if hasattr(hook, step)]
            for step in STEPS
        }

    def has(self, step: str) -> bool:
        return bool(self._steps[step])

    async def ask(self, step: str, *facts: Any) -> Reply | None:
        """The reply of the first hook that refuses, or None.  Never raises."""
        for name, method in self._steps[step]:
            try:
                answer = method(*facts)
                if inspect.isawaitable(answer):
                    answer = await asyncio.wait_for(answer, TIMEOUT)
            except TimeoutError:
                self._log(Alert(f"hook {name} took more than {TIMEOUT:.0f} seconds at {step}; deferred"))
                return _BROKEN
            except Exception as error:
                self._log(Alert(f"hook {name} failed at {step}: {error!r}; deferred"))
                return _BROKEN
            if isinstance(answer, Refuse):
                return answer.reply
        return None


def load_chain(settings: Settings, log: Log, clock: Clock) -> HookChain:
    """The hooks that `control/hooks` names.  Raises ControlError for one that is not installed."""
    context = HookContext(settings, log, clock)
    named = [(name, extensions.load("openqmail.hooks", name)(context)) for name in settings.hooks]
    return HookChain(named, log)
