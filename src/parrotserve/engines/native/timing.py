"""What steps held and how long they took, gathered until there is something else to tell."""

from dataclasses import dataclass

from parrotserve.engines.base import HEARTBEAT_SECONDS, Event, StepsTimed


@dataclass(frozen=True, slots=True, kw_only=True)
class StepHeld:
    """What a step holds, as far as its time depends on it; see `StepsTimed`."""

    prefill_tokens: int = 0
    decode_rows: int = 0
    attended: int = 0


class StepTimes:
    """The steps that nobody has been told of yet, as one sum."""

    __slots__ = ("_attended", "_decode_rows", "_kv_tokens", "_prefill_tokens", "_seconds", "_steps")

    def __init__(self) -> None:
        self._clear()

    def note(self, held: StepHeld, *, kv_tokens: int, seconds: float) -> None:
        """One more step."""
        self._steps += 1
        self._prefill_tokens += held.prefill_tokens
        self._decode_rows += held.decode_rows
        self._attended += held.attended
        self._kv_tokens += kv_tokens
        self._seconds += seconds

    def add_to(self, events: list[Event]) -> None:
        """Tells of them with these events. Alone they wait, for a reader is not to be woken in every step."""
        if self._steps and (events or self._seconds >= HEARTBEAT_SECONDS):
            events.append(self._sum())
            self._clear()

    def _sum(self) -> StepsTimed:
        return StepsTimed(
            steps=self._steps,
            prefill_tokens=self._prefill_tokens,
            decode_rows=self._decode_rows,
            kv_tokens=self._kv_tokens,
            attended=self._attended,
            seconds=self._seconds,
        )

    def _clear(self) -> None:
        self._steps = self._prefill_tokens = self._decode_rows = self._kv_tokens = self._attended = 0
        self._seconds = 0.0
