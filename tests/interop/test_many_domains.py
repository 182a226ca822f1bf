"""Mail to many domains, some of them dead, by the real service: what other hosts see of it."""

import json
import re
import smtplib
import time
from collections import Counter

from homes import Home, Waiting, free_port
from sink import Sink

DOMAINS, EACH = 100, 100


def test_ten_thousand_recipients_at_a_hundred_domains_are_at_most_two_hundred_transactions(
    home: Home,
) -> None:
    recipients = [f"u{number}@d{number % DOMAINS}.example" for number in range(DOMAINS * EACH)]
    with Sink() as sink:
        home.control("maxrecipients", str(len(recipients)))
        home.control("smtproutes", f":[127.0.0.1]:{sink.port}")
        home.start()
        with smtplib.SMTP("127.0.0.1", home.port, timeout=60) as client:
            assert client.sendmail("alice@a.example", recipients, "Subject: all\r\n\r\nhello\r\n") == {}
        for _ in Waiting("every recipient has the message"):
            if len(sink.taken) == len(recipients):
                break
        assert Counter(recipient for recipient, _ in sink.taken) == Counter(recipients)
        assert sink.transactions <= 200


def test_a_dead_host_is_left_alone_and_the_queue_tells_when_it_is_tried_next(home: Home) -> None:
    with Sink() as sink:
        home.control("smtproutes", f"dead.example:[127.0.0.1]:{free_port()}\n:[127.0.0.1]:{sink.port}")
        home.start()
        with smtplib.SMTP("127.0.0.1", home.port, timeout=60) as client:
            for number in range(40):
                client.sendmail("alice@a.example", [f"u{number}@dead.example"], "Subject: x\r\n\r\nx\r\n")
            client.sendmail("alice@a.example", ["x@live.example"], "Subject: x\r\n\r\nx\r\n")
        for _ in Waiting("the other host has its message"):
            if sink.of("x@live.example"):
                break
        for _ in Waiting("only what is put off is left"):
            queued = [json.loads(line) for line in home.run("queue", "list", "--json").stdout.splitlines()]
            recipients = [recipient for message in queued for recipient in message["recipients"]]
            if len(queued) == 40 and all(recipient["next"] for recipient in recipients):
                break
        nexts = Counter(recipient["attempts"] for recipient in recipients)
        tried = re.findall(
            rb"starting delivery \d+: msg \d+ to remote u\d+@dead\.example", home.log.read_bytes()
        )
        assert nexts[1] == len(tried) < 10 and nexts[0] == 40 - len(tried)
        now = time.time()
        assert all(now < recipient["next"] <= now + 400 for recipient in recipients)
        assert {recipient["next"] for recipient in recipients if not recipient["attempts"]} != {None}
