"""Where a request may go: no address of a private network unless a setting opens it, and never a metadata service."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import unquote

from waypost.core import limits
from waypost.core.remembered import remembered

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

#: Metadata services hand out credentials to whoever asks from the machine: no setting opens these.
_METADATA = tuple(
    map(ip_network, ("169.254.0.0/16", "fd00:ec2::254", "fd20:ce::254", "100.100.100.200", "168.63.129.16"))
)
_PRIVATE = tuple(map(ip_network, ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")))
#: No other IPv6 address is routed. Releases of `ipaddress` disagree about the rest, and about `_NOT_GLOBAL`.
_GLOBAL_V6 = IPv6Network("2000::/3")
_NOT_GLOBAL = tuple(map(ip_network, ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "3fff::/20")))
#: A translator turns an address of this network into the IPv4 address in its last four bytes.
_NAT64 = IPv6Network("64:ff9b::/96")
_COMPATIBLE = IPv6Network("::/96")
_LOOPBACKS = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
#: What the common parsers read as a number, so that a host that ends in one is an IPv4 address or nothing.
_NUMBER = re.compile(r"0x[0-9a-f]*|[0-9]+")


@remembered(longest=256)
def canonical_host(host: str) -> str:
    """The host of a URL as it is looked up: a lower-case ASCII name without final dot, or an address in its usual
    notation without brackets and zone. Raises ValueError with a sentence if it is neither.

    What is checked and what is connected to both come from here, so they can't differ.
    """
    name = unicodedata.normalize("NFKC", host if ":" in host else _decoded(host)).lower()
    if ":" in name:
        try:
            return str(IPv6Address(name.strip("[]").partition("%")[0]))
        except ValueError:
            raise _no_host(host) from None
    try:
        # This codec also maps ideographic dots and drops invisible characters: numbers are looked for after it.
        name = name if name.isascii() else name.encode("idna").decode("ascii").lower()
    except UnicodeError:
        raise _no_host(host) from None
    name = name.removesuffix(".")
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return str(_number_address(name, host))
    if len(name) > limits.HOST_LENGTH or not _NAME.fullmatch(name):
        raise _no_host(host)
    return name


def _decoded(host: str) -> str:
    try:
        return unquote(host, errors="strict")
    except UnicodeDecodeError:
        raise _no_host(host) from None


def _number_address(name: str, host: str) -> IPv4Address:
    """Reads one to four numbers as `inet_aton` does: hexadecimal after 0x, octal after 0, the last fills the rest."""
    try:
        numbers = [_number(part) for part in name.split(".")]
    except ValueError:
        raise _no_host(host) from None
    *bytes_, rest = numbers
    room = 4 - len(bytes_)
    if room < 1 or any(byte > 255 for byte in bytes_) or rest >= 256**room:
        raise _no_host(host)
    return IPv4Address(int.from_bytes(bytes(bytes_), "big") * 256**room + rest)


def _number(part: str) -> int:
    if len(part) > 40 or not _NUMBER.fullmatch(part):
        raise ValueError(part)
    if part.startswith("0x"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if part.startswith("0") else 10)


def _no_host(host: str) -> ValueError:
    return ValueError(f"endpoint host is neither a name nor an address: {host[:100]!r}")


class Guard:
    """Says why an endpoint is not allowed. `allowed` are networks that a setting opens, `never` are refused whatever
    it opens. Raises ValueError for what is no network."""

    def __init__(self, allowed: Sequence[str] = (), never: Sequence[str] = ()) -> None:
        self._allowed = tuple(map(ip_network, allowed))
        self._never = _METADATA + tuple(map(ip_network, never))
        self._refusal_of = remembered(longest=256)(self._judge_host)
        self._localhost = any(_within(address, self._allowed) for address in _LOOPBACKS)

    def refuse_host(self, host: str) -> str | None:
        """Why a URL's host is not allowed, as far as that can be said without looking it up; None: it is."""
        return self._refusal_of(host)

    def _judge_host(self, host: str) -> str | None:
        try:
            name = canonical_host(host)
        except ValueError as wrong:
            return str(wrong)
        if name == "localhost" or name.endswith(".localhost"):
            return None if self._localhost else f"endpoint resolves to a loopback address: {name}"
        return self.refuse_address(name) if is_address(name) else None

    def refuse_address(self, address: str) -> str | None:
        """Why a resolved address is not allowed; None: it is."""
        try:
            readings = list(_readings(ip_address(address.partition("%")[0])))
        except ValueError:
            return f"endpoint resolves to what is no address: {address[:100]!r}"
        for reading in readings:
            kind = self._refused_kind(reading)
            if kind:
                return f"endpoint resolves to {kind} address: {reading}"
        return None

    def _refused_kind(self, address: Address) -> str | None:
        if _within(address, self._never):
            return "a metadata"
        return None if _within(address, self._allowed) else _kind(address)


def is_address(host: str) -> bool:
    """Whether a canonical host is an address rather than a name."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _readings(address: Address) -> Iterator[Address]:
    """Every address that a packet to this one may end up at: it goes to an IPv4 address written inside it, or is
    carried through one."""
    if isinstance(address, IPv4Address):
        yield address
        return
    last = IPv4Address(address.packed[12:])
    if address.ipv4_mapped or (address in _COMPATIBLE and int(address) > 1):
        yield last
        return
    if address in _NAT64:
        yield last
        return
    yield address
    if address.sixtofour:
        yield address.sixtofour
    if address.teredo:
        yield from address.teredo


def _kind(address: Address) -> str | None:
    """What an address is instead of a globally routable one; None: it is one."""
    if address.is_loopback:
        return "a loopback"
    if address.is_unspecified:
        return "an unspecified"
    if address.is_link_local:
        return "a link-local"
    if address.is_multicast:
        return "a multicast"
    if _within(address, _PRIVATE):
        return "a private"
    routable = address in _GLOBAL_V6 if isinstance(address, IPv6Address) else not address.is_reserved
    return None if routable and address.is_global and not _within(address, _NOT_GLOBAL) else "a reserved"
