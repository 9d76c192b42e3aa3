"""Where the references of a JSON schema lead, as far as that can be told for sure."""

from collections.abc import Iterator
from typing import Any


class References:
    """The places in a schema, as JSON pointers (RFC 6901) behind a `#` name them."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        parts = (node for node in objects(schema) if node is not schema)
        self.bases = 1 + sum(isinstance(node.get("$id"), str) for node in parts)
        """From how many places pointers may be: from the top, and in a part with an `$id` from there."""

    def target(self, reference: str) -> Any:
        """What is there; None if nothing is, or if the reference is written in a way that may lead elsewhere."""
        start, _, pointer = reference.partition("#")
        if start or "%" in pointer or (pointer and not pointer.startswith("/")) or self.bases > 1:
            return None
        node: Any = self._schema
        for part in pointer.split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if isinstance(node, dict) and name in node:
                node = node[name]
            elif isinstance(node, list) and name.isdecimal() and int(name) < len(node):
                node = node[int(name)]
            else:
                return None
        return node


def objects(schema: Any) -> Iterator[dict[str, Any]]:
    """All objects in a schema, whatever they are for, however deep."""
    left = [schema]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
