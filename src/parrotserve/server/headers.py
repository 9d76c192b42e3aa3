"""A header of an exchange, read without making an object of all of them first: every exchange is asked for several."""

from starlette.types import Scope


def header(scope: Scope, name: bytes, default: str = "") -> str:
    """The first header of this name, which is in lower case as ASGI has them."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return default
