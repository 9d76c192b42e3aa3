"""What submits carry: everything new, and of what is on its way all that this needs."""

from typing import Any

from parrotserve.criteria import Criteria
from parrotserve.ids import SessionId, VariableId
from parrotserve.protocol import InputSegment, OutputSegment, RequestSpec
from parrotserve.sdk.cell import FOREVER, Cell
from parrotserve.sdk.outbox import Batch, Declaration, Named, Outbox, Want


class World:
    """Requests by name; each writes a variable of its name."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self._named: dict[str, Named] = {}

    def declare(self, name: str, *reads: str) -> Declaration:
        """A request; what it reads and nobody has named before, it introduces."""
        introduced = tuple(self._new(each) for each in reads if each not in self._named)
        segments: list[Any] = [*(InputSegment(variable=each) for each in reads), OutputSegment(variable=name)]
        made = Declaration(
            spec=RequestSpec(id=f"r-{name}", segments=tuple(segments)),
            inputs=tuple(map(VariableId, reads)),
            introduced=introduced,
            outputs=(self._new(name),),
        )
        self.outbox.declare(made)
        return made

    def want(self, name: str) -> None:
        self.outbox.want(Want(
            variable=self._named[name], criteria=Criteria.LATENCY, timeout=None, stream=False, until=FOREVER
        ))  # fmt: skip

    def take(self) -> Batch:
        batch = self.outbox.take()
        assert batch is not None
        return batch

    def _new(self, name: str) -> Named:
        self._named[name] = Named(VariableId(name), Cell(name=name, produced=True))
        return self._named[name]


def carried(batch: Batch) -> tuple[list[str], list[str]]:
    """The requests and the variables of a submit."""
    body = batch.body(SessionId("s"), 30.0)
    return [one.id for one in body.requests], [one.id for one in body.variables]


def test_what_is_on_its_way_is_not_sent_again_for_what_does_not_need_it():
    world = World()
    for name in ("a", "b", "c"):
        world.declare(name, f"of {name}".replace(" ", "-"))
        assert carried(world.take()) == ([f"r-{name}"], [f"of-{name}", name])
    assert world.outbox.take() is None


def test_what_is_read_goes_along_with_all_that_it_needs():
    world = World()
    world.declare("a", "text")
    world.declare("other")
    world.take()
    world.declare("b", "a")
    assert carried(world.take())[0] == ["r-a", "r-b"]
    world.declare("c", "b", "text")
    assert carried(world.take()) == (["r-a", "r-b", "r-c"], ["text", "a", "b", "c"])


def test_so_does_what_was_the_first_to_name_a_variable():
    world = World()
    world.declare("a", "text")
    world.take()
    world.declare("b", "text")
    assert carried(world.take()) == (["r-a", "r-b"], ["text", "a", "b"])


def test_what_is_waited_for_goes_along():
    world = World()
    world.declare("a")
    world.declare("b", "a")
    world.declare("other")
    world.take()
    world.want("b")
    batch = world.take()
    assert carried(batch)[0] == ["r-a", "r-b"]
    assert [want.variable.id for want in batch.wants] == ["b"]


def test_what_was_accepted_is_not_sent_again():
    world = World()
    first = world.declare("a", "text")
    world.take()
    world.outbox.settle([first])
    world.declare("b", "a", "text")
    world.want("a")
    assert carried(world.take()) == (["r-b"], ["b"])


def test_what_an_exchange_lost_is_new_again_and_nothing_else():
    world = World()
    world.declare("a")
    lost = world.take()
    taken = world.declare("b", "a")
    world.declare("c")
    world.take()
    world.outbox.settle([taken])
    world.outbox.resend(lost.declarations)
    assert carried(world.take())[0] == ["r-a"]
    assert world.outbox.take() is None
    world.outbox.resend([taken])
    assert world.outbox.take() is None
