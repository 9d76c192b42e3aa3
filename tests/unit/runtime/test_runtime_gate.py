"""The gate: what a tenant's limits say of a batch, of one that is sent again, and of a retry."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from parrotserve.config import ServiceConfig
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.errors import LimitExceeded, TooLarge
from parrotserve.graph.events import NewCall, NewRequest, NewVariable, Submitted, Withdrawn
from parrotserve.ids import CallId, RequestId, SessionId, TenantId, VariableId
from parrotserve.machine import Machine
from parrotserve.runtime.catalog import fake_model
from parrotserve.runtime.claims import SEAM
from parrotserve.runtime.driver import Driver
from parrotserve.runtime.gate import Gate
from parrotserve.runtime.meter import Meter
from parrotserve.runtime.metrics import Metrics
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, Text
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits

ANN, S = TenantId("ann"), SessionId("s")
MODEL = fake_model()


class Restricted(Directory):
    """Everybody has the same limits."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        self.everybody = limits

    def limits(self, tenant: TenantId) -> Limits:
        return self.everybody


class Staged:
    """A gate before a machine without engines."""

    def __init__(self, *, session_most: int = 10_000, **limits: Any) -> None:
        config = ServiceConfig(max_session_requests=session_most)
        self.directory = Restricted(Limits(**limits))
        metrics = Metrics(engines=list, sessions=lambda: 0)
        self.meter = Meter(self.directory, metrics, asyncio.get_running_loop().time)
        self.driver = Driver(Machine(models=[MODEL.name]), self.meter, config.sandbox)
        self.gate = Gate(config, self.directory, self.meter, self.driver, find=lambda _: MODEL)

    @property
    def held(self) -> tuple[int, int]:
        """Requests and tokens that are claimed."""
        _, requests, tokens, _ = self.meter.ledger.held(ANN, now=asyncio.get_running_loop().time())
        return requests, tokens

    def cancel(self, *names: str) -> None:
        for name in names:
            self.driver.apply(Withdrawn(session=S, tenant=ANN, variable=VariableId(f"out-{name}")))

    def retry(self, name: str) -> list[str]:
        """The variables that came back."""
        return [one.id for one in self.gate.retry(S, ANN, VariableId(f"out-{name}"))]


def batch(*names: str, inputs: tuple[str, ...] = (), calls: tuple[str, ...] = (), max_tokens: int = 10) -> Submitted:
    """Requests, each of which writes a variable that is called `out-` and as it."""
    inside = tuple(Input(VariableId(one)) for one in inputs)
    outputs = [VariableId(f"out-{name}") for name in (*names, *calls)]
    return Submitted(
        session=S,
        tenant=ANN,
        lease_seconds=30.0,
        variables=tuple(map(NewVariable, outputs)),
        requests=tuple(
            NewRequest(
                id=RequestId(name),
                function="f",
                model=MODEL.name,
                segments=(
                    Text("tell "),
                    *inside,
                    Output(VariableId(f"out-{name}"), Sampling(max_tokens=max_tokens, seed=0)),
                ),
            )
            for name in names
        ),
        calls=tuple(
            NewCall(id=CallId(name), function="f", inputs=(), output=VariableId(f"out-{name}")) for name in calls
        ),
    )


async def test_a_session_has_so_many_variables():
    staged = Staged(session_most=2)
    many = replace(batch(), variables=tuple(NewVariable(VariableId(f"v{number}")) for number in range(19)))
    staged.gate.take_in(many)
    staged.gate.take_in(many)
    staged.gate.take_in(batch("a"))
    with pytest.raises(TooLarge, match="may have 20 variables; this one has 20, and this would add 1"):
        staged.gate.take_in(batch("b"))


class TestSentAgain:
    """Clients whose connection broke send a batch again: what is known already changes nothing, and is no more."""

    async def test_a_batch_is_no_second_one_for_a_full_session(self):
        staged = Staged(session_requests=3)
        program = batch("a", "b", calls=("c",))
        staged.gate.take_in(program)
        staged.gate.take_in(program)
        assert len(staged.driver.machine.graph.sessions[S].producers) == 3

    async def test_only_what_is_new_counts(self):
        staged = Staged(session_requests=3)
        staged.gate.take_in(batch("a", "b"))
        staged.gate.take_in(batch("a", "b", "c"))
        with pytest.raises(TooLarge, match="this one has 3, and this would add 1"):
            staged.gate.take_in(batch("a", "d"))

    async def test_what_stands_twice_in_a_batch_counts_once(self):
        staged = Staged(session_requests=1)
        program = batch("a")
        staged.gate.take_in(Submitted(session=S, tenant=ANN, lease_seconds=30.0, variables=program.variables,
                                      requests=program.requests * 2))  # fmt: skip

    async def test_limits_that_were_lowered_meanwhile_are_for_new_requests(self):
        staged = Staged()
        staged.gate.take_in(batch("a", "b", max_tokens=100))
        staged.directory.everybody = Limits(session_requests=1, output_tokens=50, requests_in_flight=1)
        staged.gate.take_in(batch("a", "b", max_tokens=100))
        with pytest.raises(TooLarge):
            staged.gate.take_in(batch("c"))


class TestRetried:
    """What comes back is claimed for, and nothing else."""

    async def test_one_of_more_than_may_be_in_flight_can_be_retried(self):
        staged = Staged(requests_in_flight=2)
        for names in ("ab", "cd"):
            staged.gate.take_in(batch(*names))
            staged.cancel(*names)
        assert staged.retry("a") == ["out-a"]
        assert staged.retry("d") == ["out-d"]
        assert staged.held[0] == 2
        with pytest.raises(LimitExceeded):
            staged.retry("b")
        assert staged.held[0] == 2

    async def test_tokens_are_claimed_for_what_comes_back_only(self):
        staged = Staged(session_tokens=60)
        staged.gate.take_in(batch("a"))
        staged.gate.take_in(batch("b"))
        before = staged.held
        staged.cancel("a", "b")
        assert staged.held == (0, 0)
        staged.retry("a")
        assert staged.held == (1, before[1] // 2)

    async def test_what_falls_with_it_comes_back_with_it_and_is_claimed_for(self):
        staged = Staged(requests_in_flight=2)
        staged.gate.take_in(batch("a"))
        staged.gate.take_in(batch("b", inputs=("out-a",)))
        staged.cancel("a")
        assert sorted(staged.retry("a")) == ["out-a", "out-b"]
        assert staged.held[0] == 2

    async def test_what_has_not_fallen_is_claimed_once(self):
        staged = Staged(requests_in_flight=2)
        staged.gate.take_in(batch("a"))
        assert staged.retry("a") == []
        assert staged.held[0] == 1

    async def test_nothing_else_of_the_session_is_looked_at(self):
        staged = Staged()
        names = [f"q{number}" for number in range(50)]
        staged.gate.take_in(batch(*names))
        staged.cancel(*names)
        session = staged.driver.machine.graph.sessions[S]
        session.requests = Unseen(session.requests)
        session.variables = Unseen(session.variables)
        assert staged.retry("q7") == ["out-q7"]


class TestCounted:
    """Where tokens are limited, they were counted at admission: nobody waits for the gate to do it."""

    @pytest.fixture(autouse=True)
    def untold(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> Any:
            raise AssertionError("the gate makes tokens")

        monkeypatch.setattr(FakeTokenizer, "encode", refuse)

    async def test_the_count_is_what_is_claimed_and_claimed_again(self):
        staged = Staged(tokens_per_minute=1000)
        staged.gate.take_in(counted(batch("a", max_tokens=10), 400))
        assert staged.held == (1, 400 + SEAM + 10)
        staged.cancel("a")
        staged.retry("a")
        assert staged.held == (1, 400 + SEAM + 10)
        with pytest.raises(LimitExceeded):
            staged.gate.take_in(counted(batch("b"), 600))

    async def test_where_limits_came_after_it_the_bytes_are_taken(self):
        staged = Staged()
        staged.gate.take_in(batch("a"))
        staged.cancel("a")
        staged.directory.everybody = Limits(tokens_per_minute=1000)
        staged.retry("a")
        staged.gate.take_in(batch("b"))
        assert staged.held == (2, 2 * (len("tell ") + 2 * SEAM + 10))

    async def test_a_batch_that_is_sent_again_need_not_be_counted_alike(self):
        staged = Staged(tokens_per_minute=1000)
        staged.gate.take_in(counted(batch("a"), 400))
        staged.gate.take_in(batch("a"))
        assert staged.held == (1, 400 + SEAM + 10)

    @pytest.mark.parametrize("known", [True, False])
    async def test_a_value_that_many_read_is_measured_once(self, known: bool):
        staged = Staged(tokens_per_minute=10_000)
        value = NewVariable(VariableId("doc"), value=Measured("some text"))
        many = counted(batch(*"abcdefgh", inputs=("doc",)), 5)
        if known:
            staged.gate.take_in(replace(many, variables=(value,), requests=()))
        else:
            many = replace(many, variables=(*many.variables, value))
        Measured.times = 0
        staged.gate.take_in(many)
        assert staged.held == (8, 8 * (5 + len("some text") + 2 * SEAM + 10))
        assert Measured.times == 1


def counted(program: Submitted, tokens: int) -> Submitted:
    """As admission leaves it."""
    return replace(program, requests=tuple(replace(spec, text_tokens=tokens) for spec in program.requests))


class Measured(str):
    """A text that counts how often it is encoded."""

    __slots__ = ()
    times = 0

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        Measured.times += 1
        return super().encode(encoding, errors)


class Unseen(dict[Any, Any]):
    """Things that are found by their names, and never gone through."""

    def _refuse(self, *_: object) -> Any:
        raise AssertionError("a retry goes through all of its session")

    __iter__ = keys = values = items = _refuse
