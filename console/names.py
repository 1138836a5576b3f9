"""Which names a port of SQL or /metrics answers to, and which web pages may ask: ``Host``, ``Origin`` and
``Sec-Fetch-Site`` of a request. No I/O here.

A browser sends a page's requests to loopback too, and a name of the page's owner may lead there (DNS
rebinding). So a name has to be one of ours. Programs send no ``Origin`` and no ``Sec-Fetch-Site``.
"""

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
"""Of every answer: a browser neither guesses its type, nor shows it within, nor hands it to another page."""

MISDIRECTED, FORBIDDEN = 421, 403

_AUTHORITY = re.compile(r"(?:\[(?P<v6>[0-9a-fA-F:.]+)\]|(?P<name>[\w.-]+))(?::\d{0,5})?", re.ASCII)
_ORIGIN = re.compile(r"https?://(?P<authority>[^/]+)")
_OWN_SITES = frozenset({"same-origin", "none"})
_SHOWN = 100


def host_of(authority: str) -> str | None:
    """The host of ``HOST[:PORT]``, in lower case, without brackets and a closing dot; None: not such."""
    found = _AUTHORITY.fullmatch(authority)
    return (found["v6"] or found["name"].removesuffix(".")).lower() if found else None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address that is listened on."""
    address = _address(host)
    return address.is_loopback if address else host.lower() == "localhost"


class Names:
    """The names of a port that listens on ``listening``: loopback's, that address, and ``hosts``.

    Every address is one of a port that listens on all of them (0.0.0.0, ::): no page's owner can lead an
    address elsewhere.
    """

    def __init__(self, listening: str, hosts: Iterable[str]) -> None:
        address = _address(listening)
        self._all_addresses = not listening or (address is not None and address.is_unspecified)
        self._addresses = {_address(name) for name in (listening, *hosts)} - {None}
        self._names = {name.lower() for name in (listening, *hosts)}

    def include(self, authority: str) -> bool:
        """Whether ``HOST[:PORT]`` is one of them."""
        host = host_of(authority)
        if host is None:
            return False
        address = _address(host)
        if address is None:
            return host == "localhost" or host in self._names
        return address.is_loopback or self._all_addresses or address in self._addresses

    def refusal(
        self, hosts: Sequence[str], origins: Sequence[str], sites: Sequence[str]
    ) -> tuple[int, str] | None:
        """The status and the reason to refuse a request with these ``Host``, ``Origin`` and
        ``Sec-Fetch-Site`` headers; None: it may ask.
        """
        for host in hosts:
            if not self.include(host):
                return (
                    MISDIRECTED,
                    f"{host[:_SHOWN]!r} is not a name of this port; if it should be one, add it to console.hosts",
                )
        for origin in origins:
            found = _ORIGIN.fullmatch(origin)
            if not found or not self.include(found["authority"]):
                return (
                    FORBIDDEN,
                    f"a web page of {origin[:_SHOWN]!r} may not ask here; if it should, add its host to console.hosts",
                )
        if not _OWN_SITES.issuperset(sites):
            return FORBIDDEN, "a web page of another site may not ask here (Sec-Fetch-Site)"
        return None


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
