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
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class AddressRefused(ValueError):
    """The address is malformed or leads to where nothing of a tenant's may go; the message says which."""


@dataclass(frozen=True, slots=True)
class Target:
    """A checked address: what to call, and the IP address that the name stood for when it was checked."""

    url: httpx.URL
    ip: str

    def request(self, client: httpx.Client, *, content: bytes, headers: dict[str, str]) -> httpx.Request:
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
    found = socket.getaddrinfo(url.host, port, type=socket.SOCK_STREAM)
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
    try:
        literal = ipaddress.ip_address(url.host)
    except ValueError:
        return url
    if not _is_allowed(str(literal)):
        raise AddressRefused("it leads to a private, loopback or link-local address")
    return url


def _is_allowed(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    candidate = mapped or ip
    if any(candidate in network for network in settings.NOTIFICATION_ALLOWED_NETWORKS):
        return True
    return candidate.is_global and not candidate.is_multicast
