"""Reading what a model wrote, whole or piece by piece: what of it is text, and what are tool calls."""

from parrotserve.server.openai.tools import ToolCall, Tools


def read(text: str, tools: Tools | None) -> tuple[str | None, list[ToolCall]]:
    """Split an answer into its text, if it has any, and its calls, of which there are none without `tools`."""
    return (text, []) if tools is None else tools.read(text)


class Reading:
    """An answer that comes in pieces. Its text is handed out as soon as it cannot turn out to be a tool call."""

    def __init__(self, tools: Tools | None) -> None:
        self._tools = tools
        self._text = ""
        self._shown = 0

    def grow(self, more: str) -> str:
        """Add what came. Returns the text that is certain now and was not handed out before."""
        self._text += more
        certain = len(self._text)
        if self._tools is not None:
            certain = max(self._tools.shown_at_once(self._text), self._shown)
        new = self._text[self._shown : certain]
        self._shown = certain
        return new

    def finish(self, text: str) -> tuple[str, list[ToolCall]]:
        """The rest of the complete answer's text, and its calls."""
        content, calls = read(text, self._tools)
        return (content or "")[self._shown :], calls
