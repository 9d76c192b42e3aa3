"""Ids that a tenant owns are shown without their owner, in whatever is said of them."""

import pytest
from machine_world import World, only, returned, session_ended, value_set, waited

from parrotserve.errors import EngineFailed, ParrotError, RequestRefused
from parrotserve.graph.decisions import PublishFailure
from parrotserve.graph.events import Event, NewVariable
from parrotserve.ids import TenantId, VariableId, owned, shown

OWNER = owned(TenantId("acme"), VariableId(""))


def own(line: str) -> str:
    """The line with every id as its tenant owns it."""
    return " ".join(one if one in {"->", ":"} else f"{OWNER}{one}" for one in line.replace(":", " :").split())


@pytest.fixture
def world() -> World:
    world = World("e")
    world.submit(own("write: task -> code"), own("test: code -> tests"), values={own("task"): "snake"},
                 calls=[own("check: tests -> ok")], session=own("s"))  # fmt: skip
    return world


def assert_shown(error: ParrotError) -> None:
    assert OWNER not in error.message
    assert OWNER not in "".join(error.details.values())


def assert_refusal_shown(world: World, event: Event) -> None:
    with pytest.raises(RequestRefused) as refused:
        world.handle(event)
    assert_shown(refused.value)


REFUSED: dict[str, Event] = {
    "no session": waited(own("code"), session=own("other")),
    "no variable": waited(own("nowhere"), session=own("s")),
    "no call": returned(own("nothing"), "yes", session=own("s")),
    "produced": value_set(own("code"), session=own("s")),
    "has a value": value_set(own("task"), session=own("s")),
    "too early": returned(own("check"), "yes", session=own("s")),
    "both": returned(own("check"), "yes", "no", session=own("s")),
    "end": session_ended(own("other")),
}
BATCHES: dict[str, dict] = {
    "two producers": {"requests": [own("again: -> code")]},
    "a value": {"requests": [own("again: -> task")]},
    "a cycle": {"requests": [own("a: x -> y"), own("b: y -> x")]},
    "no output": {"requests": [own("a: x ->")]},
    "twice": {"requests": [own("a: x -> y y")]},
    "another variable": {"variables": [NewVariable(VariableId(own("task")), None, "chess")]},
    "another request": {"requests": [own("write: -> code")]},
    "another call": {"calls": [own("check: code -> ok")]},
    "unknown input": {"requests": [own("a: nowhere -> code")], "variables": []},
    "unknown wait": {"waits": [own("nowhere")]},
}


@pytest.mark.parametrize("event", REFUSED.values(), ids=REFUSED)
def test_refusals_show_ids_as_clients_made_them(world: World, event: Event):
    assert_refusal_shown(world, event)


@pytest.mark.parametrize("batch", BATCHES.values(), ids=BATCHES)
def test_so_do_refusals_of_batches(world: World, batch: dict):
    rest = {name: given for name, given in batch.items() if name != "requests"}
    event = world.batch(*batch.get("requests", ()), **rest, session=own("s"))
    assert_refusal_shown(world, event)


def test_so_do_failures_and_all_that_follows_from_them(world: World):
    decisions = world.end(own("write"), EngineFailed("broken"))
    failures = only(decisions, PublishFailure)
    assert [shown(one.variable) for one in failures] == ["code", "tests", "ok"]
    for one in failures:
        assert_shown(one.error)
        assert one.error.details["request"] in {"write", "test", "check"}
    assert failures[-1].error.details["upstream"] == "write"


def test_so_do_cancellations(world: World):
    for one in only(world.end_session(own("s")), PublishFailure):
        assert_shown(one.error)
