"""What the world outside was promised, and what it got: here a broken promise is noticed.

Messages have names: what somebody sent is `m1`, its bounce `bounce of m1`, what tells that two have it
`notice to a@b+c@d of m1`.  Recipients are
addresses as routed.  Each method raises AssertionError with the sentence of the promise that
was broken.
"""

import re
from collections import Counter

from openqmail.core.values import Outcome


class Sent:
    """A message: `recipients` are addresses, `text` its body; `crashes`: how many there were before;
    `wishes`: its sender wants to be told of deliveries, too."""

    def __init__(self, name, sender, recipients, text, crashes, wishes):
        self.name, self.sender, self.recipients, self.text = name, sender, recipients, text
        self.crashes, self.wishes = crashes, wishes


class Ledger:
    """`asked`: messages by name; `accepted`: those that were promised; `arrived`: (name, address) as
    often as a host took it; `deleted`: names that the administrator took away; `files`: which
    (name, address) a file of a Maildir is for, by its stem; `events`: what happened, for a story that
    failed."""

    def __init__(self):
        self.accepted = {}
        self.asked = {}
        self.arrived = Counter()
        self.deleted = set()
        self.files = {}
        self.crashes = 0
        self.events = []
        self._ended = set()
        self._settled = {}
        self._taken = set()

    def note(self, *words):
        self.events.append(" ".join(str(word) for word in words))

    def crashed(self):
        """What was taken, but not recorded yet, may be sent once more."""
        self.crashes += 1
        self._taken.clear()

    def tried(self, name, address):
        """A delivery begins."""
        assert name not in self._ended, f"message {name} came back after its end was on the disk"
        assert (name, address) not in self._settled, (
            f"message {name} came back for {address!r} after its result was on the disk"
        )

    def took(self, name, address, data):
        """Another host has it."""
        self.is_whole(name, address, data)
        assert (name, address) not in self._taken, (
            f"message {name} came to {address!r} twice without a crash in between"
        )
        self._taken.add((name, address))
        self.arrived[name, address] += 1

    def settled(self, name, address, outcome):
        """The result of this recipient is on the disk, and is no deferral."""
        assert (name, address) not in self._settled, f"message {name} has two results for {address!r}"
        self._settled[name, address] = outcome

    def ended(self, name):
        """The end of this message is on the disk."""
        assert name not in self._ended, f"message {name} has ended twice"
        self._ended.add(name)

    def is_torn(self, name, address):
        """A file is not what was written: nobody wrote it anew after a crash, as all ended otherwise."""
        delivered = self._settled.get((name, address)) is Outcome.SUCCESS
        assert self.crashes and not delivered, f"the file of message {name} to {address!r} is torn"

    def is_whole(self, name, address, data):
        sent = self.asked[name.rpartition(" ")[2]]
        text = sent.text if "notice " not in name else b"X-Name: %s\n" % sent.name.encode()
        assert text in data, f"message {name} was changed on its way to {address!r}"


def name_of(data):
    """Which message this is: the name of what somebody sent, and before it what was made of it."""
    at = data.rfind(b"\nX-Name: ")
    assert at >= 0, f"a message without a name: {data[:200]!r}"
    own = data[at + 9 :].partition(b"\n")[0].decode()
    made = "".join(map(_made, data[:at].split(b"This is the qmail-send program")[1:]))
    forwarded = b"Delivered-To: teller@here.test\n" in data[:at]
    return made + "forward of " * forwarded + own


def _made(text):
    """What a report is: of failures, or of deliveries."""
    if b"Your message was " not in text:
        return "bounce of "
    told = re.findall(rb"^<(.*)>:$", text, re.MULTILINE)
    return f"notice to {'+'.join(one.decode() for one in told)} of "
