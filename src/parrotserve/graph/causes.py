"""Why something has no value: the first failure or cancellation, told to everybody downstream of it."""

from dataclasses import dataclass

from parrotserve.errors import ParrotError
from parrotserve.ids import EngineId, shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """The failure or cancellation that began a chain of them."""

    error: ParrotError
    """The error as it was reported: its class and details are kept in all errors that follow from it."""
    sentence: str
    """What happened first, such as `'Write' (r-1) failed on engine native-0: out of memory`."""
    origin: str | None = None
    """The request or native call that failed or was cancelled first; None if none was (a session ended, say)."""
    became: str = "was not run"
    """What happened to the others because of it, as a predicate for their error messages."""
    engine: EngineId | None = None

    def error_of(self, *, producer: str, function: str, label: str) -> ParrotError:
        """The error of a request or native call, and of its outputs, that failed or was cancelled for this cause."""
        details = {**self.error.details, "request": shown(producer), "function": function}
        if self.engine is not None:
            details["engine"] = self.engine
        if self.origin == producer:
            return type(self.error)(self.sentence, **details)
        if self.origin is not None:
            details["upstream"] = shown(self.origin)
        return type(self.error)(f"{label} {self.became}: {self.sentence}", **details)
