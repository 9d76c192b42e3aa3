"""Finding the targets of references in a JSON schema, as far as they are certain."""

from collections.abc import Iterator
from typing import Any


class References:
    """Resolves references that are JSON pointers (RFC 6901) behind a `#`."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema
        parts = (node for node in objects(schema) if node is not schema)
        self.bases = 1 + sum(isinstance(node.get("$id"), str) for node in parts)
        """Number of places from which pointers may start: the top, and every part with an `$id`."""

    def target(self, reference: str) -> Any:
        """The target of a reference; None if there is none, or if the reference may lead elsewhere."""
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
    """All objects in a schema, whatever their purpose and depth."""
    left = [schema]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
