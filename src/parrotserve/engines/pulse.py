"""Detects engines that hang, by counting checks without signs of life."""

from parrotserve.engines.base import MISSED_HEARTBEATS, Heartbeat


class Pulse:
    """To be checked (`look`) once per heartbeat interval. Checks are counted, not time, so that a watcher that was
    itself held up does not blame the engine."""

    def __init__(self, *, heartbeat: float, stuck_after: float, missed: int = MISSED_HEARTBEATS) -> None:
        """An engine hangs after this many `missed` heartbeats in a row, or if it has work and makes no step for
        `stuck_after`. Times in seconds."""
        self._heartbeat = heartbeat
        self._stuck_after = stuck_after
        self._most_missed = missed
        self._missed = 0
        self._still = 0
        self._steps = -1

    def look(self, heartbeat: Heartbeat, *, alive: bool) -> str | None:
        """What is wrong, if anything. `heartbeat`: the latest. `alive`: whether anything came since the last look."""
        self._missed = 0 if alive else self._missed + 1
        self._still = self._still + 1 if heartbeat.running and heartbeat.steps == self._steps else 0
        self._steps = heartbeat.steps
        if self._missed >= self._most_missed:
            return f"{self._missed} heartbeats in a row did not come"
        if self._still and self._still * self._heartbeat >= self._stuck_after:
            return f"a step took more than {self._stuck_after:g} s"
        return None

    def excuse(self) -> None:
        """Resets the counts: the engine was kept from giving signs of life."""
        self._missed = self._still = 0
