"""Mail from this host: the request on the socket `run/submit`, who serves it, and who makes it.

`service` is the front end, `session` one of its connections, `caller` whom the kernel names.  `wire` is the
request itself; `client`, `compose`, `addresses` and `spool` are what commands such as `sendmail` are made
of, which start so often that they may import nothing but what every Python has loaded.  So this face hands
nothing on: name the module.
"""
