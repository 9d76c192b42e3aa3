"""API keys: 32 random bytes that a client shows and the service knows only by their hash."""

import hashlib
import secrets
from typing import NamedTuple

PREFIX = "parrot-"
"""So that people, and scanners of leaked secrets, know what it is."""

_ID_LENGTH = 12


class NewKey(NamedTuple):
    """A key as it is shown, once."""

    id: str
    """What it is called when it is listed and revoked; says nothing of the key."""
    text: str
    hash: bytes


def make_key() -> NewKey:
    """A fresh key."""
    text = PREFIX + secrets.token_urlsafe(32)
    return NewKey(id=f"k-{secrets.token_hex(_ID_LENGTH // 2)}", text=text, hash=hash_key(text))


def hash_key(text: str) -> bytes:
    """What is stored of a key, and looked up.

    One SHA-256, without salt: slow and salted hashes protect secrets that people choose, which can be guessed. Nobody
    guesses 256 random bits, and a key must be checked at every exchange. Looking the hash up in a table tells by its
    timing nothing that helps to find a key.
    """
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
