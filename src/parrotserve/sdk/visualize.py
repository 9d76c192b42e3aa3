"""A session's graph as a drawing."""

from collections.abc import Iterator

from parrotserve.protocol import CallView, RequestView, SessionView
from parrotserve.sdk.session import Session, current_session


def visualize(session: Session | None = None) -> str:
    """The graph of a session (None: the current one) with states, as text of a Mermaid flow chart.

    Requests and native calls are boxes, variables are rounded; arrows follow the data. GitHub, notebooks and
    https://mermaid.live draw it.
    """
    return mermaid(current_session(session).view())


def mermaid(view: SessionView) -> str:
    """The drawing of one view."""
    return "\n".join(_lines(view)) + "\n"


def _lines(view: SessionView) -> Iterator[str]:
    # Short names of its own: ids may hold characters that mean something to Mermaid.
    names = {variable.id: f"v{number}" for number, variable in enumerate(view.variables)}
    yield "flowchart TD"
    for variable in view.variables:
        yield f"    {names[variable.id]}({_label(variable.name or variable.value or variable.id, variable.state)})"
    producers: list[tuple[str, RequestView | CallView]] = [
        *((f"r{number}", request) for number, request in enumerate(view.requests)),
        *((f"c{number}", call) for number, call in enumerate(view.calls)),
    ]
    for name, producer in producers:
        label = _label(producer.function or producer.id, producer.state)
        yield f"    {name}[{label}]" if isinstance(producer, RequestView) else f"    {name}[[{label}]]"
        outputs = producer.outputs if isinstance(producer, RequestView) else (producer.output,)
        yield from (f"    {names[read]} --> {name}" for read in producer.inputs if read in names)
        yield from (f"    {name} --> {names[written]}" for written in outputs if written in names)


def _label(text: str, state: str) -> str:
    shown = text if len(text) <= 40 else f"{text[:39]}…"
    for character, entity in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;"), ("\n", " ")):
        shown = shown.replace(character, entity)
    return f'"{shown}<br/><small>{state}</small>"'
