"""The ports as frames over Unix sockets: the second implementation of each.

A client serves a port by asking the other side; a server asks the real thing.  No code above
a port knows which it has.
"""
