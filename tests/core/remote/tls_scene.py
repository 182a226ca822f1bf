"""Peers with TLS, and the keys of those who send to them."""

import ssl
import warnings

from openqmail.core.dns import Answer, MailExchanger
from openqmail.core.remote import Keys


def server(issued, folder, *, oldest=ssl.TLSVersion.TLSv1_2, newest=ssl.TLSVersion.TLSv1_3, ca=None):
    """A context that shows this certificate; with `ca` it asks clients for one."""
    file = folder / "server.pem"
    file.write_bytes(issued.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    if oldest < ssl.TLSVersion.TLSv1_2:
        context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():  # of versions that Python would rather not have
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version, context.maximum_version = oldest, newest
    if ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(cadata=ca.decode())
    return context


def keys(folder, settings, **files):
    """Of a control folder with these files; `tlshosts/mx.test.pem` is written `tlshosts__mx_test_pem`."""
    control = folder / "control"
    control.mkdir(exist_ok=True)
    for name, content in files.items():
        path = control / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return Keys.load(str(control), settings)


class Zone:
    """A resolver: MX by domain, every host is on loopback."""

    def __init__(self, **exchangers):
        self.exchangers = {name.replace("_", ".").encode(): hosts for name, hosts in exchangers.items()}

    async def mx(self, domain):
        hosts = self.exchangers.get(domain, ())
        return Answer(tuple(MailExchanger(at, host) for at, host in enumerate(hosts)), 300.0)

    async def addresses(self, host):
        return Answer(("127.0.0.1",), 300.0)
