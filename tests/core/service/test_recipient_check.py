"""Recipients are looked up in a home of one owner too: by its processes, and by one that does it all."""

import asyncio
import contextlib
import signal
import smtplib
from email.message import EmailMessage

from homes import Home, Waiting
from openqmail.core.control.home import Home as HomePaths
from openqmail.core.control.reader import read_settings
from openqmail.core.log import MemoryLog
from openqmail.core.service.mta import Mta
from openqmail.core.world import PosixDisk, SystemClock


def codes(home: Home, *recipients: str) -> list[int]:
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        smtp.ehlo()
        smtp.mail("s@c.example")
        return [smtp.rcpt(f"{one}@{home.me}")[0] for one in recipients]


def test_the_processes_of_an_owner_look_recipients_up_from_a_reload_on(home: Home) -> None:
    home.control("checkrcpt", "0")
    home.start()
    assert codes(home, "alice", "nobody") == [250, 250]
    home.control("checkrcpt", None)
    home.signal(signal.SIGHUP)
    for _ in Waiting("a connection meets the new settings"):
        with contextlib.suppress(smtplib.SMTPServerDisconnected):  # one that leaves says 421
            if codes(home, "alice", "nobody") == [250, 550]:
                break
    message = EmailMessage()
    message.set_content("hello")
    with smtplib.SMTP("127.0.0.1", home.port, timeout=30) as smtp:
        refused = smtp.send_message(message, "s@c.example", [f"alice@{home.me}", f"nobody@{home.me}"])
    assert list(refused) == [f"nobody@{home.me}"]
    home.wait_mails("alice", 1)
    home.wait_empty()
    assert "bounce" not in home.tail()
    assert home.stop() == 0


def test_one_process_that_does_everything_looks_them_up_by_itself(home: Home) -> None:
    paths, log = HomePaths(str(home.path)), MemoryLog()

    async def story() -> int:
        service = Mta(paths, read_settings(paths), PosixDisk(), SystemClock(), log, False)
        served = asyncio.create_task(service.serve())
        async with asyncio.timeout(60):
            while not any(b" serving " in line for line in log.lines()) and not served.done():
                await asyncio.sleep(0)
            found = await asyncio.to_thread(codes, home, "alice", "nobody", "alice-nothing")
            assert found == [250, 550, 550]
            service._terminate()
            return await served

    assert asyncio.run(story()) == 0
