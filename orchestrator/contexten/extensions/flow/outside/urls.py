"""Addresses that an operator gives, and which of them may be trusted with what passes."""

from __future__ import annotations

import re
from ipaddress import ip_address
from urllib.parse import urlsplit

_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%[\w.-]+)?\]|[\w.-]+)(?::(?P<port>[0-9]{1,5}))?|[0-9A-Fa-f:.]+(?:%[\w.-]+)?")
_URL = re.compile(r"[!#-\[\]-~]+")  # what a URL is written with, and a header can quote


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches that address."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def host_and_port(text: str) -> str:
    """The host, or host:port, as it is given. Raises ValueError where it is neither, such as a URL."""
    match = _HOST.fullmatch(text)
    if match is None or int(match["port"] or 1) not in range(1, 1 << 16):
        raise ValueError(f"a host or host:port is expected, such as 10.1.2.3:8080, got {text!r}")
    return text


def absolute_url(url: str) -> str:
    """The URL as it is given. Raises ValueError where it is no http or https URL with a host, or where it has more than
    host, port and path."""
    parts = urlsplit(url)
    try:
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # the port is no number
        is_whole = False
    if not is_whole or not _URL.fullmatch(url):
        raise ValueError(f"a whole URL is expected, such as https://example.com/path, got {url!r}")
    if "?" in url or "#" in url or "@" in parts.netloc:
        raise ValueError("a URL without user, query and fragment is expected")
    return url


def private_url(url: str) -> str:
    """The URL as it is given. Raises ValueError as `absolute_url` does, and where others could read or change what
    passes: it must be https, except on loopback."""
    if not absolute_url(url).startswith("https:") and not is_loopback(urlsplit(url).hostname or ""):
        raise ValueError(f"https is needed, except on loopback, got {url!r}")
    return url
