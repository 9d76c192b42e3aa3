"""The declaring of one call: its variables get their ids in a session, then it is handed to the session."""

import secrets
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from parrotserve.ids import VariableId
from parrotserve.protocol import CallSpec, OutputSegment, RequestSpec
from parrotserve.sampling import Sampling
from parrotserve.sdk.natives import BoundCall
from parrotserve.sdk.outbox import Declaration, Named
from parrotserve.sdk.session import Session
from parrotserve.sdk.variable import SemanticVariable


class Declaring:
    """Collects what a call reads and writes.

    Used within `with session.declaring:`, so that no other thread's call can refer to a variable before the call that
    introduces it. Making one raises `ForeignVariable`, before any variable gets an id.
    """

    def __init__(self, session: Session, inputs: Iterable[SemanticVariable]) -> None:
        self._session = session
        self._introduced: list[Named] = []
        self._inputs: dict[int, VariableId] = {}
        self._outputs: list[Named] = []
        self.outputs: list[SemanticVariable] = []
        variables = tuple(inputs)
        for variable in variables:
            variable.check_usable_in(session)
        self._unset = frozenset(cell for variable in variables for cell in variable.unset())
        for variable in variables:
            named, new = variable.named_in(session)
            self._inputs[id(variable)] = named.id
            if new:
                self._introduced.append(named)

    def input(self, variable: SemanticVariable) -> VariableId:
        """The id of one of the inputs."""
        return self._inputs[id(variable)]

    @property
    def inputs(self) -> tuple[VariableId, ...]:
        """The ids of all inputs, each once."""
        return tuple(dict.fromkeys(self._inputs.values()))

    def output(self, name: str, schema: dict[str, Any] | None = None) -> Named:
        """Add a variable that the call produces. If its `schema` is that of a type, `get` returns objects of it."""
        variable, named = SemanticVariable.produced(self._session, name, schema, self._unset)
        self.outputs.append(variable)
        self._outputs.append(named)
        return named

    def written(self, name: str, sampling: Sampling) -> OutputSegment:
        """Add a variable that the model writes.

        The seed is fixed here, so that a restarted service draws the same tokens for a request that is sent again.
        """
        if sampling.temperature > 0.0 and sampling.seed is None:
            sampling = replace(sampling, seed=secrets.randbits(63))
        return OutputSegment(variable=self.output(name, sampling.schema).id, sampling=sampling)

    def declare(self, spec: RequestSpec | CallSpec, *, native: BoundCall | None = None) -> None:
        """Hand the call to the session."""
        declaration = Declaration(
            spec=spec, inputs=self.inputs, introduced=tuple(self._introduced), outputs=tuple(self._outputs)
        )
        self._session.declare(declaration, native=native)
