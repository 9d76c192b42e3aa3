"""Recovery: what the journal's entries of a session say, as the event that brings it back. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from parrotserve.graph.events import KnownFailure, KnownValue, NewRequest, Restored, Submitted
from parrotserve.ids import CallId, RequestId, VariableId
from parrotserve.sampling import Usage
from parrotserve.segments import Output
from parrotserve.store.entries import FailureEntry, Kind, PieceEntry, ValueEntry, decoded, decoded_batch
from parrotserve.store.journal import Entry


@dataclass(slots=True)
class Recovered:
    """A session of the journal."""

    event: Restored
    values: dict[VariableId, ValueEntry] = field(default_factory=dict[VariableId, ValueEntry])
    pieces: dict[VariableId, list[PieceEntry]] = field(default_factory=dict[VariableId, list[PieceEntry]])
    """What was streamed of variables, also of those that have their value now."""

    @property
    def models(self) -> list[str]:
        """The models that its requests name."""
        return list(dict.fromkeys(spec.model for spec in self.event.batch.requests))

    def is_done(self, spec: NewRequest) -> bool:
        """Whether all outputs of a request are known."""
        return all(output in self.values for output in outputs_of(spec))


def recovered(entries: Iterable[Entry]) -> Recovered:
    """What a session's entries say. Raises `msgspec.DecodeError` for entries that say nothing, and `ValueError` if
    none of them is a batch."""
    batches: list[Submitted] = []
    values: dict[VariableId, ValueEntry] = {}
    failures: dict[VariableId, FailureEntry] = {}
    pieces: dict[VariableId, list[PieceEntry]] = {}
    usages: dict[RequestId, Usage] = {}
    attempts: dict[CallId, int] = {}
    for entry in entries:
        variable = VariableId(entry.key)
        match Kind(entry.kind):
            case Kind.BATCH:
                batches.append(decoded_batch(entry.body))
            case Kind.VALUE:
                values[variable] = decoded(entry.body, ValueEntry)
            case Kind.FAILURE:
                failures[variable] = decoded(entry.body, FailureEntry)
            case Kind.PIECE:
                pieces.setdefault(variable, []).append(decoded(entry.body, PieceEntry))
            case Kind.USAGE:
                usages[RequestId(entry.key)] = decoded(entry.body, Usage)
            case Kind.ATTEMPT:
                attempts[CallId(entry.key)] = decoded(entry.body, int)
    outcomes: dict[VariableId, KnownValue | KnownFailure] = {
        variable: one.failure() for variable, one in failures.items()
    }
    outcomes |= {
        variable: KnownValue(value=one.value, reason=one.reason, logprobs=sum(1 + len(lp.top) for lp in one.logprobs))
        for variable, one in values.items()
    }
    event = Restored(batch=_joined(batches), outcomes=outcomes, usages=usages, attempts=attempts)
    return Recovered(event, values, pieces)


def outputs_of(spec: NewRequest) -> list[VariableId]:
    """The variables that a request writes, in order."""
    return [segment.variable for segment in spec.segments if isinstance(segment, Output)]


def _joined(batches: list[Submitted]) -> Submitted:
    """A session's batches as one: in between it was in states that the machine can only reach step by step."""
    if not batches:
        raise ValueError("a session without a batch")
    return replace(
        batches[0],
        variables=tuple(one for batch in batches for one in batch.variables),
        requests=tuple(one for batch in batches for one in batch.requests),
        calls=tuple(one for batch in batches for one in batch.calls),
        waits=tuple(one for batch in batches for one in batch.waits),
    )
