"""API keys: 32 random bytes that a client shows and the service knows only by their hash."""

import hashlib
import secrets
from typing import NamedTuple

PREFIX = "parrot-"
"""Lets people, and scanners for leaked secrets, recognise a key."""

_ID_LENGTH = 12


class NewKey(NamedTuple):
    """A new key, with its text, which is shown only once."""

    id: str
    """Its name in lists and for revoking it; reveals nothing about the text."""
    text: str
    hash: bytes


def make_key() -> NewKey:
    """A fresh key."""
    text = PREFIX + secrets.token_urlsafe(32)
    return NewKey(id=f"k-{secrets.token_hex(_ID_LENGTH // 2)}", text=text, hash=hash_key(text))


def hash_key(text: str) -> bytes:
    """The hash of a key, which is stored and looked up in its place.

    One SHA-256, without salt: slow and salted hashes protect secrets that people choose, which can be guessed. Nobody
    guesses 256 random bits, and a key must be checked at every exchange. The timing of a look-up of the hash in a table
    reveals nothing that helps to find a key.
    """
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
