"""The keeper, with engines that start, die, hang and refuse when told to."""

import asyncio
import dataclasses
import logging
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import ClassVar

import pytest

from parrotserve.engines.base import (
    Cancel,
    Command,
    EndStatus,
    EngineDescription,
    Event,
    Heartbeat,
    SegmentFinished,
    SequenceEnded,
)
from parrotserve.engines.fake import FakeEngine, Faults
from parrotserve.errors import EngineFailed, EngineRefused, MalformedModel, ParrotError, PullFailed
from parrotserve.graph.decisions import CancelSequence
from parrotserve.ids import EngineId, RequestId
from parrotserve.runtime.keeper import EngineKeeper, KeeperPolicy, KeeperState, Order
from parrotserve.sampling import FinishReason

ENGINE = EngineId("e-0")
SOON = KeeperPolicy(heartbeat=0.02, first_backoff=0.001, longest_backoff=0.001)
ORDER = CancelSequence(request=RequestId("r"), engine=ENGINE, epoch=1)


class Reports:
    """What the keeper said, in order; a test waits for the next word."""

    def __init__(self) -> None:
        self.words: asyncio.Queue[str] = asyncio.Queue()
        self.complaint: EngineFailed | None = None

    def joined(self, engine: EngineId, description: EngineDescription) -> None:
        self.words.put_nowait(f"joined {engine}")

    def lost(self, engine: EngineId, reason: str) -> None:
        self.words.put_nowait(f"lost {engine}: {reason}")

    def given_up(self, engine: EngineId, error: ParrotError) -> None:
        self.words.put_nowait(f"given up {engine}: {error}")

    def refuse(self, engine: EngineId, order: Order, error: ParrotError) -> None:
        self.words.put_nowait(f"refused {order.request}")

    def heard(self, engine: EngineId, events: Sequence[Event]) -> None:
        if self.complaint is not None:
            complaint, self.complaint = self.complaint, None
            raise complaint
        for event in events:
            if isinstance(event, SegmentFinished):
                self.words.put_nowait(f"written {event.sequence}")
            if isinstance(event, SequenceEnded):
                self.words.put_nowait(f"ended {event.sequence}")

    async def commands(self, order: Order, description: EngineDescription) -> list[Command]:
        self.words.put_nowait(f"asked {order.request}")
        return [Cancel(sequence=order.request, epoch=order.epoch)]

    async def next(self) -> str:
        return await self.words.get()


@pytest.fixture
def reports() -> Reports:
    return Reports()


Start = Callable[..., tuple[EngineKeeper, list[FakeEngine]]]


@pytest.fixture
async def start(reports: Reports):
    """Starts a keeper whose engines, one after another, have these faults (then none)."""
    keepers: list[EngineKeeper] = []

    def begin(*faults: Faults, policy: KeeperPolicy = SOON) -> tuple[EngineKeeper, list[FakeEngine]]:
        engines: list[FakeEngine] = []

        async def make() -> FakeEngine:
            fault = faults[len(engines)] if len(engines) < len(faults) else Faults()
            engines.append(FakeEngine(ENGINE, faults=fault, heartbeat_seconds=policy.heartbeat / 4))
            return engines[-1]

        keeper = EngineKeeper(ENGINE, "fake", make, reports, policy=policy)
        keeper.start()
        keepers.append(keeper)
        return keeper, engines

    yield begin
    for keeper in keepers:
        await keeper.close()


async def test_it_starts_the_engine_and_passes_orders_on(start: Start, reports: Reports):
    keeper, _ = start()
    await keeper.wait_started()
    assert await reports.next() == "joined e-0"
    keeper.order(ORDER)
    assert await reports.next() == "asked r"
    assert keeper.state is KeeperState.UP


class Brief(FakeEngine):
    """Tells of an output and of the end of its request at once."""

    async def events(self) -> AsyncIterator[list[Event]]:
        output = SegmentFinished(
            sequence=RequestId("r"), epoch=1, segment=1, tokens=(65,), text="A", reason=FinishReason.LENGTH
        )
        yield [output, SequenceEnded(sequence=RequestId("r"), epoch=1, status=EndStatus.DONE)]
        await asyncio.Event().wait()


async def test_who_waits_for_an_output_goes_on_before_the_end_of_its_request_is_seen_to(reports: Reports):
    async def make() -> Brief:
        return Brief(ENGINE)

    keeper = EngineKeeper(ENGINE, "fake", make, reports, policy=SOON)
    keeper.start()
    assert [await reports.next(), await reports.next()] == ["joined e-0", "written r"]
    reports.words.put_nowait("answered r")
    assert [await reports.next(), await reports.next()] == ["answered r", "ended r"]
    await keeper.close()


async def test_a_dead_engine_is_started_again(start: Start, reports: Reports):
    keeper, engines = start()
    assert await reports.next() == "joined e-0"
    await engines[0].die("pulled the plug")
    assert "pulled the plug" in await reports.next()
    assert await reports.next() == "joined e-0"
    assert (len(engines), keeper.restarts) == (2, 1)


async def test_the_log_that_tells_of_a_loss_tells_of_the_return(
    start: Start, reports: Reports, caplog: pytest.LogCaptureFixture
):
    _, engines = start()
    with caplog.at_level(logging.INFO):
        assert await reports.next() == "joined e-0"
        await engines[0].die("pulled the plug")
        assert "pulled the plug" in await reports.next()
        assert await reports.next() == "joined e-0"
    told = [(record.levelname, record.getMessage().partition(":")[0]) for record in caplog.records]
    assert told[-3:] == [
        ("INFO", "engine e-0 is up"),
        ("WARNING", "engine e-0 is lost"),
        ("WARNING", "engine e-0 is up"),
    ]


async def test_an_engine_without_a_sign_of_life_is_replaced(start: Start, reports: Reports):
    _, engines = start(policy=KeeperPolicy(heartbeat=0.02, first_backoff=0.001))
    assert await reports.next() == "joined e-0"
    engines[0].hang()
    assert re.search("hung|hangs", await reports.next())
    assert await reports.next() == "joined e-0"


class Stuck(FakeEngine):
    """Says that it works, and makes no step; or says nothing at all."""

    silent = False

    async def events(self) -> AsyncIterator[list[Event]]:
        while True:
            await asyncio.sleep(0.005)
            if not self.silent:
                yield [Heartbeat(running=1, steps=3)]


@pytest.mark.parametrize(("silent", "why"), [(False, "a step took more than 0.1 s"), (True, "3 heartbeats in a row")])
async def test_an_engine_that_does_not_find_out_itself_that_it_hangs_is_replaced_too(
    reports: Reports, silent: bool, why: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Stuck, "silent", silent)
    engines = [FakeEngine(ENGINE), Stuck(ENGINE)]
    policy = KeeperPolicy(heartbeat=0.02, stuck_after=0.1)

    async def make() -> FakeEngine:
        return engines.pop()

    keeper = EngineKeeper(ENGINE, "fake", make, reports, policy=policy)
    keeper.start()
    assert await reports.next() == "joined e-0"
    lost = await reports.next()
    assert lost.startswith("lost e-0: ")
    assert f"Engine e-0 hangs: {why}" in lost
    assert await reports.next() == "joined e-0"
    await keeper.close()


async def test_an_engine_that_breaks_the_contract_is_replaced(start: Start, reports: Reports):
    reports.complaint = EngineFailed("a token too many")
    start()
    assert await reports.next() == "joined e-0"
    assert await reports.next() == "lost e-0: a token too many"
    assert await reports.next() == "joined e-0"


async def test_a_start_that_fails_is_tried_again(start: Start, reports: Reports):
    refuses = Faults(refuse_start=EngineFailed("not yet"))
    keeper, engines = start(refuses, refuses)
    await keeper.wait_started()
    assert await reports.next() == "joined e-0"
    assert len(engines) == 3


async def test_it_gives_up_after_several_starts_and_says_why(start: Start, reports: Reports):
    refuses = Faults(refuse_start=EngineFailed("no memory"))
    keeper, engines = start(refuses, refuses, refuses)
    with pytest.raises(EngineFailed, match="no memory"):
        await keeper.wait_started()
    assert await reports.next() == "given up e-0: no memory"
    assert (len(engines), keeper.state) == (3, KeeperState.FAILED)
    keeper.order(ORDER)
    assert await reports.next() == "refused r"


class Noted(KeeperPolicy):
    """Notes how often an engine that is given up was tried again, and lets it be at once."""

    retries: ClassVar[list[int]] = []

    def retry_pause(self, retries: int, chance: float) -> float:
        assert 0 <= chance < 1
        self.retries.append(retries)
        return 0.001


@pytest.fixture
def noted(monkeypatch: pytest.MonkeyPatch) -> Noted:
    monkeypatch.setattr(Noted, "retries", [])
    return Noted(heartbeat=0.02, first_backoff=0.001, longest_backoff=0.001)


async def test_an_engine_that_was_given_up_is_tried_again_until_it_is_up(start: Start, reports: Reports, noted: Noted):
    refuses = Faults(refuse_start=EngineFailed("no memory"))
    keeper, engines = start(*[refuses] * 5, policy=noted)
    with pytest.raises(EngineFailed, match="no memory"):
        await keeper.wait_started()
    assert await reports.next() == "given up e-0: no memory"
    assert await reports.next() == "joined e-0", "and it is given up once, however often it is tried"
    assert (len(engines), noted.retries) == (6, [0, 1, 2])
    assert (keeper.state, keeper.error, keeper.retry_after) == (KeeperState.UP, None, None)
    await keeper.wait_started()
    keeper.order(ORDER)
    assert await reports.next() == "asked r"


async def test_while_it_is_given_up_orders_are_refused_and_it_is_known_when_it_is_tried_again(
    start: Start, reports: Reports
):
    refuses = Faults(refuse_start=EngineFailed("no memory"))
    policy = KeeperPolicy(first_backoff=0.001, longest_backoff=0.001, first_retry=0.001, longest_retry=0.001)
    keeper, engines = start(refuses, refuses, refuses, Faults(start_seconds=3600), policy=policy)
    assert keeper.retry_after is None
    assert await reports.next() == "given up e-0: no memory"
    assert 0 <= (keeper.retry_after or 0) <= 0.001
    while len(engines) < 4:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.002)
    keeper.order(ORDER)
    assert await reports.next() == "refused r"
    assert (keeper.state, keeper.retry_after) == (KeeperState.FAILED, 0.0)
    assert "no memory" in str(keeper.error)


@pytest.mark.parametrize(("settled_after", "last"), [(10.0, 2), (0.0, 0)])
async def test_its_pauses_go_on_growing_until_it_has_been_up_for_a_while(
    start: Start, reports: Reports, noted: Noted, settled_after: float, last: int
):
    refuses = Faults(refuse_start=EngineFailed("no"))
    policy = dataclasses.replace(noted, settled_after=settled_after)
    _, engines = start(*[refuses] * 4, Faults(), *[refuses] * 3, policy=policy)
    assert [await reports.next(), await reports.next()] == ["given up e-0: no", "joined e-0"]
    await engines[-1].die()
    assert [await reports.next() for _ in range(3)][1:] == ["given up e-0: no", "joined e-0"]
    assert noted.retries == [0, 1, last]


async def test_what_nobody_expected_of_an_engine_is_tried_again_too(reports: Reports, noted: Noted):
    made: list[int] = []

    async def make() -> FakeEngine:
        made.append(0)
        if len(made) < 5:
            raise OSError("no more processes")
        return FakeEngine(ENGINE)

    keeper = EngineKeeper(ENGINE, "fake", make, reports, policy=noted)
    keeper.start()
    assert "cannot be kept up: OSError: no more processes" in await reports.next()
    assert await reports.next() == "joined e-0"
    assert (len(made), noted.retries) == (5, [0, 1])
    await keeper.close()


async def test_a_model_that_cannot_be_fetched_is_tried_more_often_before_its_engine_is_given_up(reports: Reports):
    fetches: list[int] = []

    async def make() -> FakeEngine:
        fetches.append(0)
        if len(fetches) < 10:
            raise PullFailed("There is no network.")
        return FakeEngine(ENGINE)

    for attempts, told in ((10, ["joined e-0"]), (9, ["given up e-0: There is no network.", "joined e-0"])):
        fetches.clear()
        policy = KeeperPolicy(
            first_backoff=0.001, longest_backoff=0.001, first_retry=0.001, start_attempts=2, fetch_attempts=attempts
        )
        keeper = EngineKeeper(ENGINE, "fake", make, reports, policy=policy)
        keeper.start()
        assert [await reports.next() for _ in told] == told
        await keeper.close()
        await reports.next()  # that it is lost


@pytest.mark.parametrize(
    "why", [MalformedModel("no GGUF"), EngineRefused("too little memory")], ids=lambda why: why.code
)
async def test_what_cannot_change_soon_is_tried_once_and_then_now_and_then(
    start: Start, reports: Reports, noted: Noted, why: ParrotError
):
    refuses = Faults(refuse_start=why)
    keeper, engines = start(refuses, Faults(refuse_start=EngineFailed("a bad day")), refuses, policy=noted)
    with pytest.raises(type(why)):
        await keeper.wait_started()
    assert len(engines) == 1
    assert await reports.next() == f"given up e-0: {why}"
    assert await reports.next() == "joined e-0"
    assert (len(engines), noted.retries) == (4, [0, 1, 2])


async def test_a_start_that_takes_too_long_fails(start: Start, reports: Reports):
    forever = Faults(start_seconds=3600)
    policy = KeeperPolicy(start_timeout=0.01, start_attempts=1)
    keeper, _ = start(forever, policy=policy)
    with pytest.raises(EngineFailed, match=r"did not start within 0\.01 s"):
        await keeper.wait_started()


async def test_closing_in_the_middle_of_a_start_ends_it(start: Start, reports: Reports):
    keeper, engines = start(Faults(start_seconds=3600))
    while not engines:
        await asyncio.sleep(0)
    await keeper.close()
    assert keeper.state is KeeperState.CLOSED
    assert reports.words.empty()


async def test_orders_for_an_engine_that_is_down_are_dropped(start: Start, reports: Reports):
    keeper, _ = start(Faults(start_seconds=3600))
    keeper.order(ORDER)
    assert reports.words.empty()


def test_pauses_between_starts_grow_to_a_bound():
    policy = KeeperPolicy(first_backoff=1.0, longest_backoff=5.0)
    assert [policy.backoff(failures) for failures in range(6)] == [0.0, 0.0, 1.0, 2.0, 4.0, 5.0]
    assert policy.backoff(5000) == 5.0, "an engine may die all day"


def test_pauses_of_an_engine_that_is_given_up_grow_to_minutes_and_differ_by_chance():
    policy = KeeperPolicy(first_retry=10.0, longest_retry=300.0, retry_jitter=0.2)
    pauses = [policy.retry_pause(retries, 0.0) for retries in (0, 1, 2, 3, 4, 5, 6, 5000)]
    assert pauses == [10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0]
    assert policy.retry_pause(0, 0.5) == pytest.approx(9.0)
    assert policy.retry_pause(6, 1.0) == pytest.approx(240.0)
