"""What a line of a control file may say: parsers from text to a value.

Each takes one line, without blanks at its end, and raises ValueError with a sentence that
says what is wrong and what would be right.  Names of hosts and domains come out in lower
case; one beyond ASCII is kept in both its spellings (RFC 5891), the A-labels first: they are what
is asked for (values/address.py).
"""

import ipaddress
import re

from openqmail.core.control.settings import ACCOUNTS, METRICS, HookLine, Listener, Resolver, Route
from openqmail.core.control.text import integer, shown

_LABELS = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_WORD = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")
_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~.-]{1,64}")
_COLON = re.compile(r":(?![^\[]*\])")
"""A colon that does not stand within brackets, as those of an IPv6 literal do."""

_ROUTE = re.compile(r"((?:\[[^\]]*\]|[^:\[\]])*)(?::([^:]*)(?::(.*))?)?")
"""Relay, port and login; in a relay colons stand within brackets alone, in a login anywhere."""

LONGEST_OF_A_LOGIN = 255
"""Bytes of a user, and of a password: what servers take."""

HOST = 253
"""Characters that a host's name may have (RFC 1035 section 2.3.4, less length and root)."""


def domain(text: str) -> tuple[bytes, ...]:
    """A domain or an address literal: its spelling, or both for one beyond ASCII."""
    lower = text.lower()
    if len(lower) <= HOST and _LABELS.fullmatch(lower):
        return (lower.encode(),) if "xn--" not in lower else _spellings(lower)
    if lower.startswith("[") and lower.endswith("]"):
        return (literal(lower).encode(),)
    if not lower.isascii():
        return _spellings(lower)
    raise ValueError(f"'{shown(text)}' is not a domain; write one like example.org")


def _spellings(text: str) -> tuple[bytes, ...]:
    import idna  # noqa: PLC0415  # costs a start more than all else here, and is rarely needed

    try:
        ascii_form = idna.encode(text, uts46=True)
        unicode_form = idna.decode(ascii_form).encode()
    except (idna.IDNAError, UnicodeError) as error:
        raise ValueError(f"'{shown(text)}' is not an internationalised domain: {error}") from None
    return (ascii_form,) if unicode_form == ascii_form else (ascii_form, unicode_form)


def load_idna() -> None:
    """Load all that names beyond ASCII need: for root, before it becomes somebody who may not
    be able to read it."""
    _spellings("bücher.example")


def switch(text: str) -> bool:
    """1 or 0."""
    if text not in ("0", "1"):
        raise ValueError(f"'{shown(text)}' is neither 0 nor 1; write 1 for yes, 0 for no")
    return text == "1"


def log_format(text: str) -> str:
    """qmail or json."""
    if text not in ("qmail", "json"):
        raise ValueError(f"'{shown(text)}' is no form of the log; write qmail or json")
    return text


def suffix(text: str) -> tuple[bytes, ...]:
    """A domain, or `.domain` for all below it."""
    if text.startswith("."):
        return tuple(b"." + name for name in domain(text[1:]))
    return domain(text)


def address_or_suffix(text: str) -> tuple[bytes, ...]:
    """A full address, a domain, or `.domain`; the local part in lower case, as it is compared."""
    local, at, name = text.rpartition("@")
    if not at:
        return suffix(text)
    if not local or any(letter.isspace() for letter in local):
        raise ValueError(f"'{shown(text)}' is not an address; write one like user@example.org")
    return tuple(local.lower().encode() + b"@" + name for name in domain(name))


def barred(text: str) -> tuple[bytes, ...]:
    """A full address, `@domain`, or `.domain` for all below it, as they are compared."""
    local, at, name = text.rpartition("@")
    if local:
        return address_or_suffix(text)
    if name.startswith("."):
        return suffix(name)
    if not at:
        raise ValueError(
            f"'{shown(text)}' is no address; write user@example.org, @example.org for a domain, or "
            ".example.org for all below it"
        )
    return tuple(b"@" + each for each in domain(name))


def bad_helo(text: str) -> str:
    """A name, `.suffix`, or a name with `*` for any letters, in lower case."""
    if not text.isascii() or not text.isprintable() or " " in text or len(text) > HOST:
        raise ValueError(
            f"'{shown(text)}' is not what a client says of itself; write a name like *.example.org"
        )
    return text.lower()


def host(text: str) -> bytes:
    """A host's name, in ASCII."""
    return domain(text)[0]


def literal(text: str) -> str:
    """An address literal in its usual spelling, brackets around; `IPv6:` is understood."""
    inner = text[1:-1].lower().removeprefix("ipv6:")
    try:
        return f"[{ipaddress.ip_address(inner)}]"
    except ValueError:
        raise ValueError(f"'{shown(text)}' is not an address literal; write one like [192.0.2.1]") from None


def ciphers(text: str) -> str:
    """A list of ciphers as OpenSSL takes it; whether it names any is seen when it is used."""
    if not re.fullmatch(r"[A-Za-z0-9:,@=+!_.-]+", text):
        raise ValueError(f"'{shown(text)}' is not a list of ciphers; write one like ECDHE+AESGCM:!aNULL")
    return text


def certificate_name(text: str) -> tuple[str, ...]:
    """A mailbox or a host, as a client's certificate names it."""
    if len(fields(text)) != 1:
        raise ValueError(f"'{shown(text)}' is more than a name; write one a line, like alice@example.org")
    return (text.strip().lower(),)


def local_part(text: str) -> bytes:
    """What stands before an `@`, in its plain form."""
    if not _LOCAL.fullmatch(text):
        raise ValueError(f"'{shown(text)}' is not a user's part of an address; write it without @ and blanks")
    return text.encode()


def greeting(text: str) -> bytes:
    """Text whose first word is a host's name (RFC 5321 section 4.2)."""
    first, blank, rest = text.partition(" ")
    name = host(first)
    if not rest.isascii() or not rest.isprintable():
        raise ValueError("has a character that SMTP cannot carry here; write it in ASCII")
    if len(text) > 400:  # RFC 5321 section 4.5.3.1.5 gives a reply 512 bytes
        raise ValueError("is longer than 400 characters; shorten it")
    return (first.encode() if first.isascii() else name) + (blank + rest).encode()


def port(text: str, low: int = 1) -> int:
    return integer(low, 65535, "a port")(text)


def _address_and_port(text: str, usual: str | None) -> tuple[str, str]:
    """`ADDRESS:PORT`, IPv6 in brackets; an empty address stays empty."""
    if text.startswith("["):
        inner, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise ValueError(f"'{shown(text)}' is not ADDRESS:PORT; write one like [::1]:25")
        address, colon, number = inner, rest[:1], rest[1:]
    elif text.count(":") > 1 and usual is not None:
        address, colon, number = text, "", ""
    elif text.count(":") > 1:
        raise ValueError(f"'{shown(text)}' is IPv6 without brackets; write one like [::1]:25")
    else:
        address, colon, number = text.partition(":")
    if not colon and usual is None:
        raise ValueError(f"'{shown(text)}' has no port; write ADDRESS:PORT, like 127.0.0.1:25")
    if address:
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError:
            raise ValueError(
                f"'{shown(address)}' is not an address; write one like 127.0.0.1 or [::1]"
            ) from None
    return address, number if colon else usual or ""


def listener(text: str) -> Listener:
    """`SERVICE ADDRESS:PORT [proxy=NETWORK]... [xclient=NETWORK]...`; an empty address: all of them."""
    words = text.split()
    if len(words) < 2:
        raise ValueError("needs a service and an address; write one like 'smtp 127.0.0.1:2525'")
    service = word(words[0])
    address, number = _address_and_port(words[1], None)
    fronts: dict[str, list[str]] = {"proxy": [], "xclient": []}
    for option in words[2:]:
        name, equals, which = option.partition("=")
        if name not in fronts or not equals:
            raise ValueError(f"'{shown(option)}' is no option; there are proxy=NETWORK and xclient=NETWORK")
        fronts[name].append(network(which))
    return Listener(service, address, port(number, 0), tuple(fronts["proxy"]), tuple(fronts["xclient"]))


def network(text: str) -> str:
    """A network, or an address alone, in its usual spelling."""
    try:
        found = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"'{shown(text)}' is not a network; write one like 192.0.2.0/24 or 2001:db8::/32"
        ) from None
    if "/" in text and str(found.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise ValueError(f"'{shown(text)}' has bits behind its prefix; the network is {found}")
    return str(found)


def metrics(text: str) -> Listener:
    """`ADDRESS:PORT`; an empty address: all of them."""
    address, number = _address_and_port(text, None)
    return Listener(METRICS, address, port(number, 0), kind="metrics")


def resolver(text: str) -> Resolver:
    """`ADDRESS[:PORT] [trusted]`."""
    words = text.split()
    if words[1:] not in ([], ["trusted"]):
        raise ValueError(f"'{shown(words[1])}' is not understood; only the word trusted may follow")
    address, number = _address_and_port(words[0], "53")
    if not address:
        raise ValueError("has no address; write one like 127.0.0.1:53")
    return Resolver(address=address, port=port(number), trusted=len(words) > 1)


def word(text: str) -> str:
    """The name of a service, hook or transport."""
    if not _WORD.fullmatch(text):
        raise ValueError(f"'{shown(text)}' is not a name; write one of small letters and digits, like smtp")
    return text


def account(text: str) -> tuple[tuple[bytes, ...], str]:
    """`ROLE USER`: a process, and the system's user that it runs as."""
    words = text.split()
    if len(words) != 2:
        raise ValueError("is not ROLE USER; write one like 'smtpd qmaild'")
    role, user = words
    if role not in ACCOUNTS:
        raise ValueError(f"'{shown(role)}' is not a role; the roles are {', '.join(ACCOUNTS)}")
    if not _USER.fullmatch(user):
        raise ValueError(f"'{shown(user)}' is not the name of a user; write one like {ACCOUNTS[role]}")
    if user == "root":
        raise ValueError(f"root is nobody's user here; write one of its own for {role}")
    return (role.encode(),), user


def hook(text: str) -> HookLine:
    """`NAME [timeout=SECONDS] [on_error=defer|pass]`."""
    name, *options = text.split()
    found: dict[str, str] = {}
    for option in options:
        key, equals, what = option.partition("=")
        if not equals or key not in ("timeout", "on_error"):
            raise ValueError(f"'{shown(option)}' is not an option; write timeout=SECONDS or on_error=pass")
        if key in found:
            raise ValueError(f"has {key} twice; remove one of them")
        found[key] = what
    on_error = found.get("on_error", "defer")
    if on_error not in ("defer", "pass"):
        raise ValueError(f"'{shown(on_error)}' is neither defer nor pass; write one of them")
    seconds = integer(1, 3600, "seconds")(found.get("timeout", "60"))
    return HookLine(word(name), float(seconds), "pass" if on_error == "pass" else "defer")


def hook_at(line: HookLine, number: int) -> HookLine:
    return HookLine(line.name, line.timeout, line.on_error, number)


def virtual_domain(text: str) -> tuple[tuple[bytes, ...], bytes]:
    """`address|domain|.suffix|:prefix`; an empty prefix: not virtual."""
    key, colon, prefix = split_key(text)
    if not colon:
        raise ValueError("has no colon; write DOMAIN:PREFIX, like example.org:alice")
    if any(letter.isspace() for letter in prefix) or "@" in prefix:
        raise ValueError(f"'{shown(prefix)}' is not a prefix; write one like alice or alice-lists")
    return (address_or_suffix(key) if key else (b"",)), prefix.encode()


def route(text: str) -> tuple[tuple[bytes, ...], Route]:
    """`domain:relay[:port[:user password]]`; the relay is `[transport!]host[,host...]`, empty for the MX.
    The port is 25, of LMTP 24 (RFC 2033 section 5 forbids it 25).  The login is no part of what is made."""
    keys, found, _ = route_and_login(text)
    return keys, found


def route_and_login(text: str) -> tuple[tuple[bytes, ...], Route, str]:
    """The same, and its login, empty where there is none.  What may be a part of one is never quoted."""
    key, colon, rest = split_key(text)
    if not colon:
        raise ValueError("has no colon; write DOMAIN:RELAY, like example.org:relay.example.net:25")
    keys = suffix(key) if key else (b"",)
    parts = _ROUTE.fullmatch(rest)
    if parts is None:
        raise ValueError("has a bracket that is not closed; write a literal like [::1]")
    relay, number, login = parts.groups("")
    if any(mark in relay + number for mark in " |"):
        raise ValueError("has no port before its login; write DOMAIN:RELAY:PORT:USER PASSWORD")
    _no_bare_ipv6(rest)
    if "," in number:
        raise ValueError("has a port before a comma; one port holds for all hosts: write it behind the last")
    transport, bang, hosts = relay.rpartition("!")
    name = word(transport) if bang else "smtp"
    usual = 24 if name == "lmtp" else 25
    found = tuple(relay_host(name) for name in hosts.split(",")) if hosts else ()
    if login and not found:
        raise ValueError("has a login, but no relay to be told it; name the relay")
    if login:
        check_login(login)
    return keys, Route(transport=name, hosts=found, port=port(number) if number else usual), login


def without_login(text: str) -> str:
    """A line of control/smtproutes as others may see it; a route that is a comment keeps its secret, too."""
    if text.lstrip().startswith("#"):
        route = text.lstrip("# \t")
        return text.removesuffix(route) + _without_login(route) if _has_login(route) else text
    return _without_login(text)


def _without_login(text: str) -> str:
    key, colon, rest = split_key(text)
    parts = _ROUTE.fullmatch(rest)
    if parts is None or any(mark in f"{parts[1]}:{parts[2]}" for mark in " |"):
        return f"{key}{colon}***"  # where a login stands in the wrong place
    return f"{key}{colon}{parts[1]}:{parts[2]}:***" if parts[3] else text


def _has_login(text: str) -> bool:
    try:
        return bool(route_and_login(text)[2])
    except ValueError:
        return False


def check_login(text: str) -> None:
    """`USER PASSWORD`.  Raises ValueError, which quotes nothing of it."""
    user, _, password = text.partition(" ")
    if not user or not password.strip():
        raise ValueError("has no user and password with a blank between; write USER PASSWORD")
    if max(len(user.encode()), len(password.encode())) > LONGEST_OF_A_LOGIN:
        raise ValueError(f"has a user or a password of more than {LONGEST_OF_A_LOGIN} bytes; shorten it")


def _no_bare_ipv6(rest: str) -> None:
    """Raises ValueError: what stands behind the key is an address of IPv6, whose colons divide nothing."""
    address = rest.rpartition("!")[2].partition(",")[0]
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        return
    raise ValueError(f"'{shown(address)}' is IPv6 without brackets; write [{shown(address)}]")


def relay_host(text: str) -> bytes:
    """A relay as control/smtproutes and control/credentials have it."""
    if text.startswith("/"):
        raise ValueError(f"'{shown(text)}' is a path; Unix sockets cannot be named here: write a host")
    if text.isascii() and text.isdigit():
        raise ValueError(f"has no relay before {shown(text)}; write DOMAIN:RELAY:PORT, or DOMAIN::PORT")
    if text.replace(".", "").isdigit() and text.isascii():
        return literal(f"[{text}]").encode()
    return host(text)


def split_key(text: str) -> tuple[str, str, str]:
    """At the first colon that is not within the brackets of a literal."""
    close = text.find("]:") if "[" in text.partition(":")[0] else -1
    at = close + 1 if close >= 0 else text.find(":")
    return (text, "", "") if at < 0 else (text[:at], ":", text[at + 1 :])


def fields(text: str) -> list[str]:
    """What stands between colons that are not within brackets."""
    return _COLON.split(text)
