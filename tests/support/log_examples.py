"""One event of each kind, as docs/log.md shows them: under which words, and as what."""

from openqmail.core import log
from openqmail.core.values import Outcome

TIME = "2026-03-01T09:30:00.250Z"

CLIENT, PORT, HELO = "192.0.2.1", 40001, b"mail.c.example"
ALICE, BOB, NOBODY = b"alice@c.example", b"bob@a.example", b"nobody@a.example"

EXAMPLES: list[tuple[str, list[log.Event]]] = [
    (
        "Receiving by SMTP",
        [
            log.SmtpdAccepted(1705211, CLIENT, PORT, HELO, ALICE, 2),
            log.SmtpdRefused(
                "rcpt",
                NOBODY,
                550,
                CLIENT,
                PORT,
                HELO,
                ALICE,
                b"5.1.1 Sorry, no mailbox here by that name.",
            ),
            log.SmtpdAccepted(1705213, CLIENT, PORT, HELO, ALICE, 1, b"alice"),
            log.SmtpdRefused("unknown", b"", 500, CLIENT, PORT, b"", None, b"5.5.2 command not recognized"),
            log.SmtpdSession("quit", CLIENT, PORT, "smtp", HELO, 1.25, 1, 2, 1, 4711),
            log.SmtpdSession("denied", CLIENT, PORT, "smtp", b"", 0.0, 0, 0, 0, 0, "192.0.2.254:61000"),
            log.SmtpdSession(
                end="quit",
                client=CLIENT,
                port=PORT,
                service="smtp",
                helo=HELO,
                seconds=1.25,
                messages=1,
                recipients=2,
                refused=0,
                size=4711,
                tls="TLSv1.3",
                cipher="TLS_AES_256_GCM_SHA384",
                sni="mail.a.example",
            ),
            log.SmtpdTlsFailed(CLIENT, PORT, "smtps", b"", b"wrong version number"),
        ],
    ),
    (
        "Logins",
        [
            log.AuthAccepted(b"alice", b"SCRAM-SHA-256", CLIENT, PORT, "submission", True),
            log.AuthRefused("wrong", b"alice", b"PLAIN", CLIENT, PORT, "submission", True),
        ],
    ),
    (
        "Receiving from programs of this host",
        [
            log.SubmitAccepted(1705212, 1000, 4242, b"carol@a.example", 1),
            log.SubmitRefused("failure", 1000, 4242, b"carol@a.example", b"too many recipients"),
        ],
    ),
    (
        "A message in the queue",
        [
            log.NewMessage(1705211),
            log.MessageInfo(1705211, 4386, ALICE, 4240, 7791),
            log.MessageInfo(1705213, 5120, b"", 4240, 7791, parent=1705211),
            log.DeliveryStarted(17, 1705211, "local", BOB),
            log.DeliveryEnded(17, Outcome.SUCCESS, b"did 1+0+0\n", 1705211),
            log.DeliveryEnded(18, Outcome.DEFERRAL, b"CNAME lookup failed temporarily. (#4.4.3)\n", 1705211),
            log.DeliveryEnded(
                19, Outcome.FAILURE, b"Sorry, no mailbox here by that name. (#5.1.1)\n", 1705211
            ),
            log.Bounced(1705211, 4240),
            log.TripleBounce(1705211),
            log.MessageEnded(1705211),
        ],
    ),
    (
        "Sending to other hosts",
        [
            log.RemoteTls(
                18,
                CLIENT,
                25,
                b"mx.b.example",
                "may",
                "TLSv1.3",
                "TLS_AES_256_GCM_SHA384",
                "mx.b.example",
            ),
            log.RemoteTlsFailed(18, CLIENT, 25, b"mx.b.example", "may", "plain", b"wrong version number"),
            log.RemoteTlsFailed(
                18,
                CLIENT,
                25,
                b"mx.b.example",
                "verify",
                "wait",
                b"its certificate is not believed: certificate has expired",
            ),
            log.RemoteLogin(18, CLIENT, 587, b"smtp.b.example", b"me@a.example", b"SCRAM-SHA-256-PLUS", True),
        ],
    ),
    (
        "Hosts that fail",
        [
            log.DestinationRests(
                b"d.example", 87, 2, b"Sorry, I wasn't able to establish an SMTP connection. (#4.4.1)\n"
            ),
            log.DestinationAnswers(b"d.example"),
            log.Warn("msg 1705211: no connection: 198.51.100.7 port 25: connection refused", 1705211),
        ],
    ),
    (
        "The service",
        [
            log.Status(1, 10, 0, 20),
            log.Status(1, 10, 0, 20, exiting=True),
            log.Exiting(),
            log.Notice("took the new settings"),
            log.Notice("message 1705211 deleted by the administrator", 1705211),
            log.Warn("mail for bob@a.example is put off: Home_directory_is_writable._(#4.7.0)"),
            log.Warn(
                "msg 1705211: mail for d.example waits: looking up MX of d.example failed: "
                "192.0.2.53:53 says SERVFAIL",
                1705211,
            ),
            log.Alert("smtpd, pid 4240, ended by signal 9; it is started anew"),
        ],
    ),
]
