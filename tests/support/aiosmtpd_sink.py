"""aiosmtpd as a receiver: in a thread of this process, on loopback; keeps what it takes in memory."""

import importlib.util
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from homes import Waiting, free_port


def why_not() -> str | None:
    """The reason why it cannot run here, if there is one."""
    if importlib.util.find_spec("aiosmtpd") is None:
        return "there is no aiosmtpd (pip install aiosmtpd)"
    return None


class Aiosmtpd:
    """One server for `users`; it runs in a `with`."""

    def __init__(self, users: Sequence[str]) -> None:
        self.users, self.port = users, free_port()
        self._mails: dict[str, list[bytes]] = {}

    async def handle_RCPT(  # the name is aiosmtpd's
        self, server: Any, session: Any, envelope: Any, address: str, options: list[str]
    ) -> str:
        if address.partition("@")[0] not in self.users:
            return "550 5.1.1 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        content = bytes(envelope.content).replace(b"\r\n", b"\n")
        for address in envelope.rcpt_tos:
            self._mails.setdefault(address.partition("@")[0], []).append(content)
        return "250 2.0.0 taken"

    def __enter__(self) -> "Aiosmtpd":
        from aiosmtpd.controller import Controller  # only where it is installed

        self._controller = Controller(
            self, "127.0.0.1", self.port, enable_SMTPUTF8=True, data_size_limit=50_000_000
        )
        self._controller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._controller.stop()

    def said(self) -> str:
        return ""

    def wait_mails(self, user: str, count: int) -> list[bytes]:
        """Until a user has at least so many, and then all of them, in no order."""
        for _ in Waiting(f"{user} has {count} mails at aiosmtpd"):
            if len(found := self._mails.get(user, [])) >= count:
                return list(found)
        raise AssertionError
