"""What is a text: Unicode that can be tokenised and sent, which Python's strings need not be."""

from parrotserve.errors import DeclarationError


def check_text(text: str, what: str) -> str:
    """The text. Raises `DeclarationError` for one with a lone surrogate: it could be neither tokenised nor sent."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DeclarationError(
            f"{what} is no Unicode text: it has a lone surrogate at character {error.start}. Such texts come from "
            "decoding with errors='surrogateescape'; decode with errors='replace' instead."
        ) from error
    return text
