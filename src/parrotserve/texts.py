"""Checks of texts: they must be Unicode that can be tokenised and sent, which not every string of Python is."""

from parrotserve.errors import DeclarationError

MOST_NAME = 1_000
MOST_TOLD = 4_000
"""Most characters of a name, and of an error's text: each is repeated in the errors of everything that fails for it."""


def check_text(text: str, what: str) -> str:
    """The text. Raises `DeclarationError` for one with a lone surrogate: it could be neither tokenised nor sent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DeclarationError(
            f"{what} is not valid Unicode: it has a lone surrogate at character {error.start}. Such texts come from "
            "decoding with errors='surrogateescape'; decode with errors='replace' instead."
        ) from error
    return text


def check_name(name: str, what: str) -> str:
    """The name. Raises `DeclarationError` for one that is not valid Unicode, or too long."""
    if len(name) > MOST_NAME:
        raise DeclarationError(f"{what} has {len(name):,} characters, and may have {MOST_NAME:,}.")
    return check_text(name, what)


def briefly(told: str) -> str:
    """The text of an error, cut off at `MOST_TOLD` characters."""
    return told if len(told) <= MOST_TOLD else told[:MOST_TOLD] + "..."
