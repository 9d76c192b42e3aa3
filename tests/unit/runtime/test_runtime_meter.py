"""The meter: who pays for what, while engines still let go of what was cancelled."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from parrotserve.errors import EngineFailed
from parrotserve.graph.events import RequestEnded
from parrotserve.ids import EngineId, RequestId, SessionId, TenantId
from parrotserve.runtime.meter import Meter
from parrotserve.sampling import Usage
from parrotserve.tenancy.ledger import Claim
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.usage import Usage as Used

ANN, BOB = TenantId("ann"), TenantId("bob")
R, E = RequestId("r"), EngineId("e")


@pytest.fixture
def meter() -> Meter:
    directory: Any = SimpleNamespace(limits=lambda _: Limits())
    metrics: Any = SimpleNamespace(used=lambda *_: None, tenant_served=lambda *_: None)
    return Meter(directory, metrics, lambda: 0.0)


def reused(meter: Meter) -> None:
    """Ann's request was cancelled, and its engine still lets go of it, when Bob's has its id."""
    meter.accept(ANN, SessionId("a"), [Claim(R, 50)])
    meter.opened(R, 0, E)
    meter.over(R)
    meter.accept(BOB, SessionId("b"), [Claim(R, 70)])
    meter.opened(R, 1, E)


def counted(meter: Meter) -> list[tuple[int, int, int]]:
    """Requests, tokens claimed and tokens taken of Ann and Bob."""
    return [meter.ledger.held(tenant, now=0.0)[1:] for tenant in (ANN, BOB)]


def test_an_id_that_is_used_again_is_billed_to_whom_each_run_belongs(meter: Meter):
    reused(meter)
    assert counted(meter) == [(1, 50, 0), (1, 70, 0)]
    meter.ended(R, 0, Usage(prompt_tokens=10, output_tokens=3))
    assert counted(meter) == [(0, 0, 13), (1, 70, 0)]
    meter.ended(R, 1, Usage(prompt_tokens=20, output_tokens=4))
    meter.over(R)
    assert counted(meter) == [(0, 0, 13), (0, 0, 24)]
    assert (meter.unsaved[ANN].output_tokens, meter.unsaved[BOB].output_tokens) == (3, 4)


def test_an_engine_that_dies_lets_go_of_both(meter: Meter):
    reused(meter)
    meter.lost(E)
    assert counted(meter) == [(0, 0, 0), (1, 70, 0)]
    meter.over(R)
    assert counted(meter) == [(0, 0, 0), (0, 0, 0)]
    assert not meter._departed


def test_what_ends_before_its_engine_knows_is_counted_when_the_engine_tells(meter: Meter):
    meter.accept(ANN, SessionId("a"), [Claim(R, 50)])
    meter.opened(R, 0, E)
    meter.heard(RequestEnded(request=R, epoch=0, usage=None, error=EngineFailed("no prompt")))
    meter.over(R)
    assert counted(meter) == [(1, 50, 0), (0, 0, 0)]
    meter.heard(RequestEnded(request=R, epoch=0, usage=Usage(prompt_tokens=10), cancelled=True))
    assert counted(meter) == [(0, 0, 10), (0, 0, 0)]


def used_by_ann(directory: object) -> Meter:
    """A meter that has something to save."""
    metrics: Any = SimpleNamespace(used=lambda *_: None, tenant_served=lambda *_: None)
    given: Any = directory
    meter = Meter(given, metrics, lambda: 0.0)
    meter.accept(ANN, SessionId("a"), [Claim(R, 50)])
    meter.ended(R, 0, Usage(prompt_tokens=10))
    return meter


class SlowDirectory:
    """Stores what it is given once it is `released`, in whichever thread it is asked."""

    stores_usage = True

    def __init__(self, *, fails: bool = False) -> None:
        self.released, self.stored = threading.Event(), list[tuple[TenantId, int]]()
        self._fails = fails

    def limits(self, tenant: TenantId) -> Limits:
        return Limits()

    def add_usage(self, day: str, used: dict[TenantId, Any], *, wait: bool) -> bool:
        self.released.wait(30)
        if not self._fails:
            self.stored += [(tenant, one.prompt_tokens) for tenant, one in used.items()]
        return not self._fails

    def usage(self, tenant: TenantId | None) -> list[Any]:
        return [("2026-01-01", name, Used(prompt_tokens=tokens)) for name, tokens in self.stored]


async def test_only_the_last_save_waits_for_other_writers(monkeypatch: pytest.MonkeyPatch):
    waited: list[bool] = []

    def add_usage(day: str, used: object, *, wait: bool) -> bool:
        waited.append(wait)
        return wait

    monkeypatch.setattr("parrotserve.runtime.meter.SAVE_SECONDS", 0)
    meter = used_by_ann(SimpleNamespace(limits=lambda _: Limits(), add_usage=add_usage, stores_usage=True))
    saving = asyncio.ensure_future(meter.save_now_and_then())
    while len(waited) < 2:
        await asyncio.sleep(0)
    saving.cancel()
    await meter.save()
    assert set(waited[:-1]) == {False}
    assert waited[-1]
    assert not meter.unsaved


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_waits_for_the_disk_and_nothing_is_counted_twice_or_lost(fails: bool):
    directory = SlowDirectory(fails=fails)
    meter = used_by_ann(directory)
    asked = asyncio.ensure_future(meter.usage(ANN))
    await asyncio.sleep(0.05)  # in which the event loop is free
    asked.cancel()
    meter.ended(R, 0, Usage(prompt_tokens=5))
    saved = asyncio.ensure_future(meter.save())
    await asyncio.sleep(0.05)
    assert not saved.done()
    directory.released.set()
    await saved
    assert sum(one.prompt_tokens for one in await meter.usage(ANN)) == 15
    assert directory.stored == ([] if fails else [(ANN, 10), (ANN, 5)])


async def test_what_cannot_be_stored_now_is_told_beside_what_is_stored():
    directory = SlowDirectory(fails=True)
    directory.released.set()
    directory.stored.append((ANN, 7))
    meter = used_by_ann(directory)
    assert [one.prompt_tokens for one in await meter.usage(ANN)] == [7, 10]


async def test_what_is_stored_nowhere_is_told_all_the_same():
    meter = used_by_ann(SimpleNamespace(limits=lambda _: Limits(), stores_usage=False))
    assert [(one.tenant, one.prompt_tokens) for one in await meter.usage(None)] == [(ANN, 10)]
