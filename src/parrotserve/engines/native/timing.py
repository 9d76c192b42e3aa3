"""What steps held and how long they took, gathered until there is something else to tell."""

from dataclasses import dataclass

from parrotserve.engines.base import Event, StepsTimed

_TOLD_SECONDS = 0.1
"""Steps in which nothing else happens are told of after so long: the scheduler's first decisions rest on them."""
_NONE = StepsTimed(steps=0, prefill_tokens=0, decode_rows=0, kv_tokens=0, attended=0, seconds=0.0)
_Kind = tuple[bool, int]
"""Whether prompts are read, and how many binary digits the decode rows have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepShape:
    """What a step holds, as far as its time depends on it. `attended`: pairs of a row and a token that it attends
    to."""

    prefill_tokens: int = 0
    decode_rows: int = 0
    attended: int = 0


class StepTimes:
    """The steps that the service has not been told of yet, as one sum of each kind: only like steps may be summed."""

    __slots__ = ("_seconds", "_sums")

    def __init__(self) -> None:
        self._sums: dict[_Kind, StepsTimed] = {}
        self._seconds = 0.0

    def note(self, shape: StepShape, *, kv_tokens: int, seconds: float) -> None:
        """One more step."""
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
        """Adds them to these events. Without other events they wait, for no reader is to be woken in every step."""
        if self._sums and (events or self._seconds >= _TOLD_SECONDS):
            events.extend(self._sums.values())
            self._sums.clear()
            self._seconds = 0.0
