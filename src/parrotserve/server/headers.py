"""Reading one header of an exchange without building an object of all of them: several are read per exchange."""

from starlette.types import Scope


def header(scope: Scope, name: bytes, default: str = "") -> str:
    """The first header of this name, which must be in lower case, as in ASGI."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return default
