"""Which addresses the platform calls on a tenant's behalf: public ones, and those that an operator has allowed.

A name is resolved here and the connection goes to the address that was checked, so that a name which answers
differently the second time gains nothing (server-side request forgery, https://cwe.mitre.org/data/definitions/918.html).
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

import httpx
from django.conf import settings

MAX_URL_LENGTH: Final = 1024
_GLOBAL_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
_FOR_PROTOCOLS: Final = (ipaddress.IPv6Network("2001::/23"), ipaddress.IPv6Network("2002::/16"))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class AddressRefused(ValueError):
    """The address is malformed or leads to where nothing of a tenant's may go; the message says which."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked address: what to call, and the IP address that the name stood for when it was checked."""

    url: httpx.URL
    ip: str

    def request(self, client: httpx.AsyncClient, *, content: bytes, headers: dict[str, str]) -> httpx.Request:
        """A POST that goes to the checked IP address and is otherwise addressed to the name (TLS included)."""
        return client.build_request(
            "POST",
            self.url.copy_with(host=self.ip),
            content=content,
            headers={**headers, "host": self.url.netloc.decode()},
            extensions={"sni_hostname": self.url.host},
        )


def problem_with_url(text: str) -> str:
    """What is wrong with a URL as far as its text tells, or an empty text. Resolves nothing."""
    try:
        _parse(text)
    except AddressRefused as error:
        return str(error)
    return ""


def check(text: str) -> Target:
    """Resolve a URL's name and check where it leads. Raises AddressRefused, OSError where the name is unknown."""
    url = _parse(text)
    port = url.port or _DEFAULT_PORTS[url.scheme]
    try:
        found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise AddressRefused("no host can have this name") from None
    addresses = [str(entry[4][0]) for entry in found]
    # All of them: whoever controls a name must not smuggle one in beside a harmless one.
    if not addresses or not all(_is_allowed(address) for address in addresses):
        raise AddressRefused("it leads to a private, loopback or link-local address")
    return Target(url, addresses[0])


def _parse(text: str) -> httpx.URL:
    if len(text) > MAX_URL_LENGTH:
        raise AddressRefused(f"at most {MAX_URL_LENGTH} characters")
    try:
        parts = urlsplit(text)
        url = httpx.URL(text)
        port = parts.port
    except (ValueError, httpx.InvalidURL):
        raise AddressRefused("not a URL") from None
    if url.scheme not in _DEFAULT_PORTS or not url.host or port == 0:
        raise AddressRefused("write a URL that begins with https:// or http://")
    if parts.username or parts.password:
        raise AddressRefused("leave user name and password out of the URL")
    literal = _literal(url.host)
    if (literal is not None and not _is_allowed(literal)) or url.host.rstrip(".").endswith("localhost"):
        raise AddressRefused("it leads to a private, loopback or link-local address")
    return url


def _literal(host: str) -> str | None:
    """The IP address that a host spells, in any of the forms that a resolver would take; None where it is a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        # 127.1, 2130706433 and 0x7f.1 are 127.0.0.1 to inet_aton(3).
        return socket.inet_ntoa(socket.inet_aton(host))
    except (OSError, UnicodeError):
        return None


def _is_allowed(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    candidate = mapped or ip
    if any(candidate in network for network in settings.NOTIFICATION_ALLOWED_NETWORKS):
        return True
    if isinstance(candidate, ipaddress.IPv6Address) and not _is_plain_unicast(candidate):
        return False
    return candidate.is_global and not candidate.is_multicast


def _is_plain_unicast(address: ipaddress.IPv6Address) -> bool:
    """Whether it is an ordinary global address: none that carries an IPv4 address to wherever that leads.

    Allocated are those of 2000::/3 (https://www.iana.org/assignments/ipv6-address-space); of these 2001::/23 and
    2002::/16 are for protocols, Teredo and 6to4 among them. NAT64 and the like lie outside.
    """
    return address in _GLOBAL_UNICAST and not any(address in network for network in _FOR_PROTOCOLS)
