"""Placement: order of arrival, the least loaded engine, and only where it can be admitted."""

from parrotserve.graph.events import EngineJoined, NewRequest
from parrotserve.graph.objects import Request, Session, Times
from parrotserve.scheduler.naive import NaiveScheduler

SESSION = Session(id="s", tenant="t", lease_seconds=1.0, began=0.0)


def join(scheduler: NaiveScheduler, engine: str, *, places: int = 4, model: str = "m") -> None:
    scheduler.join(EngineJoined(engine=engine, model=model, context_length=1, cache_tokens=1, credits=places))


def queue(scheduler: NaiveScheduler, *names: str, model: str = "m") -> list[Request]:
    """Requests that arrive in this order; a number in a name is its arrival."""
    made = []
    for name in names:
        spec = NewRequest(id=name, function=name, model=model, segments=())
        request = Request(spec=spec, session=SESSION, inputs=(), outputs=(), times=Times(submitted=0.0))
        request.arrival = int("".join(filter(str.isdigit, name)))
        scheduler.queue(request)
        made.append(request)
    return made


def placed(scheduler: NaiveScheduler) -> list[tuple[str, str]]:
    return [(one.request.id, one.placement.chosen.engine) for one in scheduler.place(0.0)]


def test_requests_go_in_order_of_arrival_and_not_of_readiness():
    scheduler = NaiveScheduler()
    queue(scheduler, "r3", "r1", "r2")
    join(scheduler, "e", places=2)
    assert placed(scheduler) == [("r1", "e"), ("r2", "e")]
    scheduler.free("e", "r1", None, 0.0)
    assert placed(scheduler) == [("r3", "e")]


def test_they_go_to_the_least_loaded_engine():
    scheduler = NaiveScheduler()
    join(scheduler, "e")
    join(scheduler, "f")
    queue(scheduler, "r1", "r2", "r3")
    assert placed(scheduler) == [("r1", "e"), ("r2", "f"), ("r3", "e")]
    scheduler.free("e", "r1", None, 0.0)
    scheduler.free("e", "r3", None, 0.0)
    queue(scheduler, "r4", "r5", "r6")
    assert placed(scheduler) == [("r4", "e"), ("r5", "e"), ("r6", "f")]


def test_an_engine_without_credits_gets_nothing_though_it_has_least():
    scheduler = NaiveScheduler()
    join(scheduler, "small", places=1)
    join(scheduler, "big", places=9)
    queue(scheduler, "r1", "r2", "r3", "r4")
    assert [engine for _, engine in placed(scheduler)] == ["small", "big", "big", "big"]


def test_only_an_engine_of_the_model_will_do():
    scheduler = NaiveScheduler()
    join(scheduler, "e", model="other")
    queue(scheduler, "r1")
    assert placed(scheduler) == []
    join(scheduler, "f")
    assert placed(scheduler) == [("r1", "f")]


def test_one_model_does_not_hold_up_another():
    scheduler = NaiveScheduler()
    join(scheduler, "e", places=1)
    queue(scheduler, "r1", "r2")
    queue(scheduler, "r3", model="other")
    join(scheduler, "f", model="other")
    assert placed(scheduler) == [("r1", "e"), ("r3", "f")]
    scheduler.free("e", "r1", None, 0.0)
    assert placed(scheduler) == [("r2", "e")]


def test_what_is_taken_back_is_not_placed():
    scheduler = NaiveScheduler()
    first, _ = queue(scheduler, "r1", "r2")
    scheduler.unqueue(first)
    join(scheduler, "e")
    assert placed(scheduler) == [("r2", "e")]


def test_a_lost_engine_gives_back_what_it_ran():
    scheduler = NaiveScheduler()
    join(scheduler, "e")
    requests = queue(scheduler, "r1", "r2")
    scheduler.place(0.0)
    assert scheduler.lose("e") == requests
    assert scheduler.lose("e") == []
    scheduler.free("e", "r1", None, 0.0)
    queue(scheduler, "r3")
    assert placed(scheduler) == []


def test_a_pass_looks_only_where_something_changed():
    scheduler = NaiveScheduler()
    join(scheduler, "e", places=1)
    queue(scheduler, "r1", "r2")
    assert placed(scheduler) == [("r1", "e")]
    assert placed(scheduler) == []
    scheduler.free("e", "no such request", None, 0.0)
    assert placed(scheduler) == []


class TestSuspects:
    @staticmethod
    def suspect(scheduler: NaiveScheduler, name: str) -> Request:
        (request,) = queue(scheduler, name)
        scheduler.unqueue(request)
        request.deaths = (("x", "died"), ("y", "died"))
        scheduler.queue(request)
        return request

    def test_the_least_loaded_engine_is_emptied_for_one(self):
        scheduler = NaiveScheduler()
        join(scheduler, "e", places=3)
        join(scheduler, "f", places=3)
        queue(scheduler, "r1", "r2", "r3")
        scheduler.place(0.0)  # two on e, one on f
        self.suspect(scheduler, "r4")
        queue(scheduler, "r5", "r6", "r7")
        assert placed(scheduler) == [("r5", "e")]
        scheduler.free("f", "r2", None, 0.0)
        assert placed(scheduler) == [("r4", "f")]
        scheduler.free("e", "r1", None, 0.0)
        assert placed(scheduler) == [("r6", "e")]
        scheduler.free("f", "r4", None, 0.0)
        assert placed(scheduler) == [("r7", "f")]

    def test_it_goes_before_others_to_an_engine_that_is_empty(self):
        scheduler = NaiveScheduler()
        queue(scheduler, "r1")
        self.suspect(scheduler, "r2")
        join(scheduler, "e")
        assert placed(scheduler) == [("r2", "e")]

    def test_two_are_not_placed_together(self):
        scheduler = NaiveScheduler()
        self.suspect(scheduler, "r1")
        self.suspect(scheduler, "r2")
        join(scheduler, "e")
        assert placed(scheduler) == [("r1", "e")]
        join(scheduler, "f")
        assert placed(scheduler) == [("r2", "f")]
