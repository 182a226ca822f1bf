"""What the send manager knows of a host that mail goes to, for people who ask why it waits."""

import msgspec


class DestinationState(msgspec.Struct, frozen=True, gc=False):
    """`name`: the domain as routed; `running`: deliveries under way, of at most `limit` just now;
    `waiting`: messages that are due and wait for it; `failures`: of the whole host, in a row;
    `resting_until`: seconds UTC, None when it does not rest; `last`: what its latest failure said, None
    when a success followed.  Bytes beyond UTF-8 as \\xNN."""

    name: str
    running: int
    limit: int
    waiting: int
    failures: int
    resting_until: int | None
    last: str | None
