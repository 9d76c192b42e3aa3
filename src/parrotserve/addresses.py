"""Addresses in a form that may be shown to anybody: without credentials."""

import re
from urllib.parse import urlsplit, urlunsplit


def without_credentials(url: str) -> str:
    """The URL without user name and password."""
    before, at, after = url.rpartition("@")
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return after  # it is unclear where the password ends
    if not parts.netloc and at and re.fullmatch(r"[^/\\:]*:[^/\\]*", before):
        return after  # it has no scheme, but a password
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
