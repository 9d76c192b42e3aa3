"""The contents and times of steps, summed until they are sent along with other events."""

from dataclasses import dataclass

from parrotserve.engines.base import Event, StepsTimed

_TOLD_SECONDS = 0.1
"""Steps without other events are reported after this much time: the scheduler's first decisions depend on them."""
_NONE = StepsTimed(steps=0, prefill_tokens=0, decode_rows=0, kv_tokens=0, attended=0, seconds=0.0)
_Kind = tuple[bool, int]
"""Whether prompts are prefilled, and the number of binary digits of the number of decode rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """The contents of a step that determine its time. `attended`: pairs of a row and a token that it attends to."""

    prefill_tokens: int = 0
    decode_rows: int = 0
    attended: int = 0


class StepTimes:
    """The steps that were not reported to the service yet, as one sum per kind: only similar steps may be summed."""

    __slots__ = ("_seconds", "_sums")

    def __init__(self) -> None:
        self._sums: dict[_Kind, StepsTimed] = {}
        self._seconds = 0.0

    def note(self, shape: StepShape, *, kv_tokens: int, seconds: float) -> None:
        """Adds a step."""
        self._seconds += seconds
        kind = shape.prefill_tokens > 0, shape.decode_rows.bit_length()
        so_far = self._sums.get(kind, _NONE)
        self._sums[kind] = StepsTimed(
            steps=so_far.steps + 1,
            prefill_tokens=so_far.prefill_tokens + shape.prefill_tokens,
            decode_rows=so_far.decode_rows + shape.decode_rows,
            kv_tokens=so_far.kv_tokens + kv_tokens,
            attended=so_far.attended + shape.attended,
            seconds=so_far.seconds + seconds,
        )

    def add_to(self, events: list[Event]) -> None:
        """Adds the sums to these events. Without other events they are kept for a while, so that no reader is woken in
        every step."""
        if self._sums and (events or self._seconds >= _TOLD_SECONDS):
            events.extend(self._sums.values())
            self._sums.clear()
            self._seconds = 0.0
