"""Models that are fetched when requests name them: for what is accepted, and for nothing else."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest
from runtime_programs import answer, batch, made, request, taken, text, wait

from parrotserve.config import ServiceConfig
from parrotserve.errors import InvalidGraph, InvalidSchema, LimitExceeded, ParrotError, TooLarge, UnknownModel
from parrotserve.ids import TenantId
from parrotserve.models.pull import Progress
from parrotserve.protocol import RequestSpec, RoleSegment, Submit
from parrotserve.runtime.catalog import ServedModel, fake_model
from parrotserve.runtime.service import Service
from parrotserve.segments import Role
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

ANN = TenantId("ann")
ABSENT = "smollm2-135m"


class Fetching:
    """A service that has `fake`, and what it fetched."""

    def __init__(self) -> None:
        self.fetched: list[str] = []

    async def start(self, directory: Directory) -> None:
        config = ServiceConfig(models=("fake",), on_demand=True, max_session_requests=3)
        self.service = await Service.start(config, load=self._load, directory=directory)
        await self.service.wait_started()
        self.fetched.clear()

    def _load(self, name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        self.fetched.append(name)
        return fake_model(name=name)

    async def run(self, body: Submit) -> dict[str, str]:
        return (await answer(self.service.submit(body, tenant=ANN))).values


@pytest.fixture
async def fetching(tmp_path: Path) -> AsyncIterator[Fetching]:
    store = TenantStore(tmp_path)
    store.create_tenant(ANN, Limits(output_tokens=1000, requests_in_flight=2, sessions=1))
    made = Fetching()
    await made.start(Directory(store))
    yield made
    await made.service.close()
    store.close()


def asks(*names: str, model: str | None = ABSENT, **sampling: Any) -> Iterable[RequestSpec]:
    return [request(f"r-{name}", text("x"), made(name, **sampling), model=model) for name in names]


NUMBERS = {"type": "integer", "multipleOf": 0}


@pytest.mark.parametrize(
    ("refused", "error"),
    [
        (batch(*asks("a", schema=NUMBERS)), InvalidSchema),
        (batch(*asks("a", max_tokens=1001)), TooLarge),
        (batch(*asks("a", "b", "c", "d")), TooLarge),
        (batch(*asks("a"), *asks("b", "c", model=None)), TooLarge),
        (batch(request("r", text("x"), model=ABSENT)), InvalidGraph),
        (batch(request("r", taken("b"), made("a"), model=ABSENT), request("s", taken("a"), made("b"))), InvalidGraph),
        (batch(*asks("a"), *asks("b", model="/nowhere.gguf")), UnknownModel),
        (batch(*asks("a"), session="another"), LimitExceeded),
    ],
    ids=range(8),
)
async def test_nothing_is_fetched_for_what_is_refused(fetching: Fetching, refused: Submit, error: type[ParrotError]):
    await fetching.run(batch())
    with pytest.raises(error):
        await fetching.run(refused)
    assert fetching.fetched == []
    assert [model.name for model in fetching.service.models()] == ["fake"]
    got = await fetching.run(batch(*asks("a"), wait("a")))  # and the refusal has left nothing behind
    assert (set(got), fetching.fetched) == ({"a"}, [ABSENT])


async def test_what_its_own_model_would_take_is_not_refused_before(fetching: Fetching):
    tools = ({"type": "function", "function": {"name": "f"}},)
    segments = (
        RoleSegment(role=Role.ASSISTANT), text("Hello."), RoleSegment(role=Role.TOOL), text("1"),
        RoleSegment(role=Role.SYSTEM), text("Say"), made("a", logit_bias={40_000: 1.0}),
    )  # fmt: skip
    with pytest.raises(ParrotError, match="logit_bias names token 40000, which is not in the vocabulary of"):
        await fetching.run(batch(RequestSpec(id="r", segments=segments, model=ABSENT, tools=tools)))
    assert fetching.fetched == [ABSENT]


def test_what_ends_a_program_waits_for_no_model_that_never_comes():
    begun, given_up, ended = threading.Event(), threading.Event(), threading.Event()

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        begun.set()
        given_up.wait(20)
        ended.set()
        return fake_model(name=name)

    async def give_up() -> None:
        starting = asyncio.create_task(Service.start(ServiceConfig(models=("fake",)), load=load))
        await asyncio.to_thread(begun.wait)
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)

    asyncio.run(give_up())
    assert not ended.is_set()
    given_up.set()


async def test_a_model_that_is_not_wanted_any_more_is_cleared_away(tmp_path: Path):
    begun, half = threading.Event(), tmp_path / "half"

    def load(name: str, config: ServiceConfig, progress: Progress | None) -> ServedModel:
        assert progress is not None
        half.write_text("half")
        try:
            while True:
                progress(0, 1)
                begun.set()
        finally:
            half.unlink()

    starting = asyncio.create_task(Service.start(ServiceConfig(models=("fake",)), load=load))
    await asyncio.to_thread(begun.wait)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert not half.exists()
