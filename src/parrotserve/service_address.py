"""The URL of a service and the key for it, as programs give them, checked before anything is sent."""

import re
from urllib.parse import urlsplit

import httpx

from parrotserve.addresses import without_credentials
from parrotserve.errors import DeclarationError, ServiceUnavailable

_NO_TLS = "WRONG_VERSION_NUMBER"
"""What OpenSSL's error contains if the answer is not TLS."""


def service_url(url: str) -> str:
    """The URL without the `/v1` that OpenAI clients have at its end. Raises `ServiceUnavailable` if it is not valid."""
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
    """The key, stripped. Raises `DeclarationError` for what cannot be a key."""
    if not isinstance(key, str):  # pyright: ignore[reportUnnecessaryIsInstance] - callers may not check
        raise DeclarationError(f"An API key is a text, not {type(key).__name__}.")
    key = key.strip()
    if not (key.isascii() and key.isprintable()):
        raise DeclarationError(
            "The API key has characters that no key has; copy it again, as `parrot key create` printed it."
        )
    return key


def plain_http_advice(url: str, fault: str) -> str:
    """Advice if a connection failed because the URL says https:// and the server speaks plain HTTP; else empty."""
    if not url.startswith("https:") or _NO_TLS not in fault:
        return ""
    return f"What answers there speaks plain HTTP: write http:{url.removeprefix('https:')}."
