"""Where events may go: an address is taken apart, its name looked up once, and every answer held against the rule.

The rule: https to public addresses; anything else only when the target's `allow` names it. A name in `allow` makes
private and loopback addresses of that name good; link-local (the cloud's metadata), multicast, unspecified and
reserved addresses have to be named themselves. What is checked here is what is then connected to, so that a second
look-up with another answer (DNS rebinding) has no place to happen.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from contracts.errors import TargetRefused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolver = Callable[[str, int], Sequence[str]]

_NAME = re.compile(r"^(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$")
_PATH = re.compile(r"[!-\[\]-~]*")  # printable ASCII without the space and the backslash
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# Special by the IANA registries, and yet global to the ipaddress module of some Python release that we run on.
_SPECIAL = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "2001::/23", "3fff::/20", "5f00::/16", "fec0::/10")
)
_PORTS = {"https": 443, "http": 80}


@dataclass(frozen=True)
class Endpoint:
    """An address taken apart: `host` is a lower-case name or an address without brackets; `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def shown(self) -> str:
        """The address for people, without its query, which may hold a secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path.partition('?')[0]}"


@dataclass(frozen=True)
class Allowed:
    """What a target's `allow` names: host names and networks."""

    names: frozenset[str]
    networks: tuple[Network, ...]

    def holds(self, address: Address) -> bool:
        """True when a network of the list holds the address."""
        return any(address.version == network.version and address in network for network in self.networks)


def allowed_of(entries: Iterable[str]) -> Allowed:
    """The list taken apart.

    Raises:
        TargetRefused: an entry is neither a host name, nor an address, nor a network.
    """
    names, networks = set(), []
    for entry in entries:
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]")))
        except ValueError:
            if not _is_name(entry.lower()):
                raise TargetRefused(repr(entry), "allow: wanted a host name, an address or a network") from None
            names.add(entry.lower())
    return Allowed(frozenset(names), tuple(networks))


def endpoint_of(url: str, allowed: Allowed) -> Endpoint:
    """A URL taken apart, and refused when no answer of any DNS server could make it good.

    Raises:
        TargetRefused: another scheme than https (http where allowed), a user or password in it, a host that is no plain
            name or address (decimal, octal and hexadecimal spellings included), an address that is not allowed.
    """
    if not _PATH.fullmatch(url):
        raise TargetRefused(repr(url)[:120], "wanted printable ASCII without spaces and backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise TargetRefused(repr(url)[:120], "it is not a URL") from None
    scheme, shown = parts.scheme.lower(), f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"[:120]
    if scheme not in _PORTS:
        raise TargetRefused(shown, "wanted https://")
    if "@" in parts.netloc:
        raise TargetRefused(shown, "a user or password in the address; the signing secret is named by secret_env")
    if parts.fragment or "#" in url:
        raise TargetRefused(shown, "a fragment (#...), which is never sent")
    host = (parts.hostname or "").removesuffix(".")
    address = _literal(host, bracketed="[" in parts.netloc)
    if address is None and not _is_name(host):
        raise TargetRefused(shown, "wanted a host name, or an address in its usual spelling")
    where = Endpoint(scheme, host, _PORTS[scheme] if port is None else port, _path(parts.path, parts.query))
    if address is not None and (why := why_refused(address, host, allowed)):
        raise TargetRefused(where.shown, why)
    if scheme == "http" and host not in allowed.names and not (address and allowed.holds(address)):
        raise TargetRefused(where.shown, "plain http needs the host in the target's allow")
    return where


def addresses_of(where: Endpoint, allowed: Allowed, resolver: Resolver) -> tuple[str, ...]:
    """The addresses that may be connected to; the name is looked up once, and one bad answer refuses all.

    Args:
        where: see `endpoint_of`.
        allowed: see `allowed_of`.
        resolver: from a name and a port to addresses.

    Raises:
        TargetRefused: the name has an address that is not allowed.
        OSError: the name cannot be looked up.
    """
    found = tuple(dict.fromkeys(resolver(where.host, where.port)))
    if not found:
        raise OSError("the name has no address")
    for text in found:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            raise TargetRefused(where.shown, "the name was answered with something that is no address") from None
        if why := why_refused(address, where.host, allowed):
            raise TargetRefused(where.shown, why)
    return found


def system_resolver(host: str, port: int) -> Sequence[str]:
    """Ask the system."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def why_refused(address: Address, host: str, allowed: Allowed) -> str:
    """Why nothing may go to this address; empty when it may. IPv4 inside IPv6 is held to the same rule.

    Args:
        address: that would be connected to.
        host: the name it was found under, or itself.
        allowed: what the target allows.
    """
    for one in (address, *_inside(address)):
        if allowed.holds(one):
            continue
        special = one.is_link_local or one.is_multicast or one.is_unspecified or one.is_reserved
        special = special or any(one.version == network.version and one in network for network in _SPECIAL)
        if special or not (host in allowed.names or one.is_global):
            return f"{one} is not a public address, and the target's allow does not name it"
        if getattr(one, "scope_id", None):
            return "an address with a zone"
    return ""


def _inside(address: Address) -> tuple[Address, ...]:
    """IPv4 addresses that an IPv6 address stands for: mapped, compatible, 6to4, Teredo, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return ()
    found: list[Address | None] = [address.ipv4_mapped, address.sixtofour]
    if address.teredo:
        found += list(address.teredo)
    if address in _NAT64 or (int(address) >> 32 == 0 and int(address) > 1):
        found.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return tuple(one for one in found if one is not None)


def _literal(host: str, *, bracketed: bool) -> Address | None:
    try:
        return ipaddress.IPv6Address(host) if bracketed else ipaddress.IPv4Address(host)
    except ValueError:
        return None


def _is_name(host: str) -> bool:
    """A host name of letters; one whose last part could be read as a number is an address in disguise."""
    last = host.rpartition(".")[2]
    return bool(_NAME.fullmatch(host)) and not re.fullmatch(r"\d+|0x[0-9a-f]*", last)


def _path(path: str, query: str) -> str:
    return (path or "/") + (f"?{query}" if query else "")
