"""Items of kept responses as they are told, page by page."""

from collections.abc import Sequence
from typing import Any

from parrotserve.errors import DeclarationError
from parrotserve.server.openai.responses.answers import ItemList
from parrotserve.server.openai.responses.wire import Item

_PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs"}


def told_item(item: Item, base: str, number: int) -> dict[str, Any]:
    """An item in its full form, with an id: its own, or one that its number in the response with this base gives."""
    kind = item.type or "message"
    told: dict[str, Any] = {"id": item.id or f"{_PREFIXES.get(kind, kind)}_{base}.{number}", "type": kind}
    told |= item.model_dump(exclude={"id", "type"}, exclude_none=True)
    if kind == "message" and isinstance(item.content, str):
        told["content"] = [{"type": "output_text" if item.role == "assistant" else "input_text", "text": item.content}]
    if kind == "message" and item.role == "assistant":
        told["content"] = [{"annotations": [], **part} for part in told["content"]]
    return told if kind == "reasoning" else told | {"status": "completed"}


def page_of(items: Sequence[dict[str, Any]], *, after: str | None, most: int) -> ItemList:
    """The `most` items that follow the one with the id `after`. Raises `DeclarationError` if there is none."""
    start = 0
    if after is not None:
        start = 1 + next((number for number, item in enumerate(items) if item["id"] == after), len(items))
        if start > len(items):
            raise DeclarationError(f"There is no item {after[:80]!r} in this response.", param="after")
    page = items[start : start + most]
    return ItemList(
        object="list",
        data=list(page),
        first_id=page[0]["id"] if page else None,
        last_id=page[-1]["id"] if page else None,
        has_more=start + most < len(items),
    )
