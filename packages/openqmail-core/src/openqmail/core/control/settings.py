"""What the control files say, as immutable values: read whole, swapped whole.

`read_settings` (reader.py) makes one from a home, `defaults` one of nothing; no job reads a file by
itself but `sendmail`, which is no part of the service.
All names of hosts and domains are lower case.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from openqmail.core.control.bindings import Bindings, Source
from openqmail.core.control.blocklists import Blocklist
from openqmail.core.control.rules import Rules

ACCOUNTS = {"smtpd": "qmaild", "gate": "qmailp", "send": "qmails", "remote": "qmailr", "alias": "alias"}
"""A role -> the user that it has when `control/accounts` names none: qmail's."""


METRICS = "metrics"
"""What the listeners of `control/metrics` are called where all that listens stands together."""

METRICS_LIBRARY = "prometheus_client"
"""What it takes to tell figures."""


class Listener(msgspec.Struct, frozen=True):
    """Something that listens; `host` without brackets.

    `kind`: `service`, which is a line of `control/listen`; `metrics`, one of `control/metrics`; or
    `submit`, the socket of local submission, which no line names.
    `proxy`, `xclient`: the networks of the front ends that say whose connection they pass on, by a
    header of HAProxy's PROXY protocol, or by XCLIENT."""

    service: str
    host: str
    port: int
    proxy: tuple[str, ...] = ()
    xclient: tuple[str, ...] = ()
    kind: Literal["service", "metrics", "submit"] = "service"

    @property
    def place(self) -> "Listener":
        """The same without options: what a socket is bound for."""
        return Listener(self.service, self.host, self.port, kind=self.kind)


class Route(msgspec.Struct, frozen=True):
    """A line of `control/smtproutes`.  No `hosts`: the domain's own MX.

    A host is a name or an address literal in brackets; it is looked up by A and AAAA only.
    """

    transport: str
    hosts: tuple[bytes, ...]
    port: int = 25


class Resolver(msgspec.Struct, frozen=True):
    """A line of `control/resolvers`; `trusted`: its DNSSEC status may be believed."""

    address: str
    port: int = 53
    trusted: bool = False


class HookLine(msgspec.Struct, frozen=True):
    """A line of `control/hooks`: `timeout` in seconds a step; `on_error`: what a hook's failure means."""

    name: str
    timeout: float = 60.0
    on_error: Literal["defer", "pass"] = "defer"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that the jobs need to know.  What holds without a file is said by its definition alone
    (`defaults` in reader.py).

    `rcpthosts`, `morercpthosts`: domains and `.suffix`es for which anybody may send us mail.
    `badmailfrom`, `badrcptto`: addresses, `@domain`s and `.suffix`es, as values/address.py spells them.
    `locals`: domains delivered here.  `virtualdomains`: full address, domain, `.suffix` or the
    empty catch-all -> prefix (an empty prefix: not virtual).  `smtproutes`: domain, `.suffix` or
    empty -> route.  Times in seconds, sizes in bytes; `databytes`, `bouncemaxbytes` 0: no limit.
    `tlspolicy`: domain, `.suffix` or `*` -> a word of `securing.POLICIES`; `tlsclientciphers` and
    `tlsserverciphers` empty: the usual ones.  `tlsclients`: names in certificates, lower case.
    `bounceformat` is `qmail` or `dsn`.  `added`: the values of control files that add-ons declare, by name.
    `checkpassword` and its like: a command and its arguments; `authmechanisms`: names in capitals, none: see
    mechanisms.py; `senders`: login -> addresses and `@domain`s in lower case.  `accounts`: role -> user,
    where it is not `ACCOUNTS`.
    """

    me: bytes
    # who receives and relays
    listen: tuple[Listener, ...]
    rules: Rules
    rcpthosts: frozenset[bytes]
    morercpthosts: frozenset[bytes]
    localiphost: bytes
    badmailfrom: frozenset[bytes]
    badrcptto: frozenset[bytes]
    badhelo: tuple[str, ...]
    smtpgreeting: bytes
    databytes: int
    maxrecipients: int
    concurrencyincoming: int
    connectionsperhour: int
    messagesperhour: int
    timeoutsmtpd: int
    checkrcpt: bool
    concurrencynetwork: int
    recipientsperhour: int
    maxmessages: int
    maxconnectionrecipients: int
    maxerrors: int
    maxbadrcpt: int
    tarpit: int
    mindatarate: int
    greetdelay: int
    dnsbl: tuple[Blocklist, ...]
    dnsblscore: int
    lookupclients: bool
    requirereverse: bool
    tlsserverciphers: str
    tlsclients: frozenset[str]
    # who logs in, and what a login may send
    checkpassword: tuple[bytes, ...]
    checkcram: tuple[bytes, ...]
    checktoken: tuple[bytes, ...]
    authplain: bool
    submissionauth: bool
    authfailures: int
    authmechanisms: frozenset[bytes]
    senders: Mapping[bytes, frozenset[bytes]]
    loginmessagesperhour: int
    loginrecipientsperhour: int
    hooks: tuple[HookLine, ...]
    # where mail goes
    envnoathost: bytes
    percenthack: frozenset[bytes]
    locals: frozenset[bytes]
    virtualdomains: dict[bytes, bytes]
    concurrencylocal: int
    concurrencyremote: int
    concurrencydestination: int
    queuelifetime: int
    # what we write ourselves
    bouncefrom: bytes
    bouncehost: bytes
    doublebounceto: bytes
    doublebouncehost: bytes
    bounceformat: str
    bouncemaxbytes: int
    # what sendmail puts in; it reads these files by itself
    defaulthost: bytes
    defaultdomain: bytes
    plusdomain: bytes
    idhost: bytes
    # local
    defaultdelivery: bytes
    # remote
    helohost: bytes
    smtproutes: dict[bytes, Route]
    resolvers: tuple[Resolver, ...]
    timeoutconnect: int
    timeoutremote: int
    chunkingremote: bool
    tlspolicy: Mapping[bytes, str]
    tlsclientciphers: str
    # from which address, by the sender
    bindings: Mapping[bytes, Source] | None
    domainbindings: Mapping[bytes, Source]
    domainips: Mapping[bytes, Source]
    outgoingip: Mapping[bytes, Source]
    # as whom the processes run
    accounts: Mapping[bytes, str]
    # which processes there are
    smtpdworkers: int
    # how they write their log
    logformat: Literal["qmail", "json"]
    # where their figures are told
    metrics: tuple[Listener, ...]
    # for how many days what happened to messages is kept
    historydays: int
    # what add-ons read
    added: Mapping[str, object] = {}

    def sources(self) -> Bindings:
        """What `control/bindings` says; when there is no such file, what the older ones say, the more
        particular of them first."""
        if self.bindings is not None:
            return Bindings(self.bindings)
        return Bindings({**self.outgoingip, **self.domainips, **self.domainbindings})
