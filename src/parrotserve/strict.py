"""Types of fields whose values are not converted when they come from the wire: `true` is not 1, and `"5"` not 5.

A client that sends such a value means something else, and gets an error rather than a guess. For everything but
pydantic, which this module does not import, these are the plain types.
"""

from collections.abc import Callable
from typing import Annotated, Any


class _AsWritten:
    """Makes pydantic validate a field strictly: no other type is converted to the field's."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {**handler(source), "strict": True}


_AS_WRITTEN = _AsWritten()

Whole = Annotated[int, _AS_WRITTEN]
"""A whole number."""
Number = Annotated[float, _AS_WRITTEN]
"""Any number."""
Truth = Annotated[bool, _AS_WRITTEN]
"""True or false."""
