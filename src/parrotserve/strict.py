"""Types of fields that are taken from the wire as they are written: `true` is no 1, and `"5"` no 5.

Who sends such a value means something else, and is told rather than guessed at. To everything but pydantic, which is
not needed for them, these are the plain types.
"""

from collections.abc import Callable
from typing import Annotated, Any


class _AsWritten:
    """Asks pydantic for no other type than the field's, where it makes values of JSON."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), "strict": True}


_AS_WRITTEN = _AsWritten()

Whole = Annotated[int, _AS_WRITTEN]
"""A whole number."""
Number = Annotated[float, _AS_WRITTEN]
"""Any number."""
Truth = Annotated[bool, _AS_WRITTEN]
"""True or false."""
