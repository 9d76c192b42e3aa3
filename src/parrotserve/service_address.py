"""What programs are told of a service: its URL and a key, checked before anything is sent."""

import re
from urllib.parse import urlsplit

import httpx

from parrotserve.addresses import without_credentials
from parrotserve.errors import DeclarationError, ServiceUnavailable

_NO_TLS = "WRONG_VERSION_NUMBER"
"""How OpenSSL says that an answer is none of TLS."""


def service_url(url: str) -> str:
    """The URL without what clients of OpenAI have at its end. Raises `ServiceUnavailable` for what is no URL."""
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        good = good and bool(httpx.URL(url).host) and not (parts.query or parts.fragment)
    except (ValueError, TypeError, AttributeError, httpx.InvalidURL):
        good = False
    if not good:
        shown = without_credentials(str(url))
        schemeless = "://" not in str(url) and re.fullmatch(r"[\w.-]+:\d+", shown)
        guess = f"http://{shown}" if schemeless else "http://HOST:PORT"
        raise ServiceUnavailable(f"{shown!r} is not the URL of a service; write {guess}.", url=shown)
    return url.rstrip("/").removesuffix("/v1")


def service_key(key: str) -> str:
    """The key without blanks around it. Raises `DeclarationError` for what can be none."""
    if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check
        raise DeclarationError(f"An API key is a text, not {type(key).__name__}.")
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise DeclarationError(
            "The API key has characters that no key has; copy it again, as `parrot key create` printed it."
        )
    return key


def plain_http_advice(url: str, fault: str) -> str:
    """What to write where a connection failed because the URL has https:// and the server does not; else empty."""
    if not url.startswith("https:") or _NO_TLS not in fault:
        return ""
    return f"What answers there speaks plain HTTP: write http:{url.removeprefix('https:')}."
