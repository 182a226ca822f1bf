"""tcprules as its manual page has it, slowly: every rule is written out, and looked for in order."""

import ipaddress


def spelled(line):
    """The patterns of a line and whether it allows; ranges written out as tcprules does."""
    pattern, _, verb = line.rpartition(":")
    if pattern.startswith(("=", "[")) or not pattern:
        return [pattern.lower()], verb == "allow"
    texts = [""]
    for at, part in enumerate(pattern.partition("/")[0].split(".")):
        low, dash, high = part.partition("-")
        numbers = range(int(low), int(high) + 1) if dash else [part]
        texts = [text + ("." if at else "") + str(number) for text in texts for number in numbers]
    slash = pattern.partition("/")[1:]
    return [text + "".join(slash) for text in texts], verb == "allow"


def network(pattern):
    """The addresses of a pattern that is no name."""
    text = pattern.replace("[", "").replace("]", "")
    if "/" in text:
        return ipaddress.ip_network(text)
    if text.endswith("."):
        numbers = text.rstrip(".").split(".")
        return ipaddress.ip_network(".".join(numbers + ["0"] * (4 - len(numbers))) + f"/{8 * len(numbers)}")
    if text.endswith(":") and not text.endswith("::"):
        groups = text.rstrip(":").split(":")
        return ipaddress.ip_network(":".join(groups + ["0"] * (8 - len(groups))) + f"/{16 * len(groups)}")
    return ipaddress.ip_network(text)


def allows(lines, address, name):
    """What the file `lines` says of a client."""
    rules = {}
    for line in lines:
        patterns, allow = spelled(line)
        for pattern in patterns:
            key = pattern if pattern.startswith("=") or not pattern else network(pattern)
            rules.setdefault(key, allow)
    client = ipaddress.ip_address(address)
    found = [
        key for key in rules if not isinstance(key, str) and client.version == key.version and client in key
    ]
    found.sort(key=lambda key: -key.prefixlen)
    if found and found[0].prefixlen == client.max_prefixlen:
        return rules[found[0]]
    if name and "=" + name in rules:
        return rules["=" + name]
    if found:
        return rules[found[0]]
    for at, letter in enumerate(name):
        if letter == "." and "=" + name[at:] in rules:
            return rules["=" + name[at:]]
    if name and "=" in rules:
        return rules["="]
    return rules.get("", True)
