"""Fair lines: tenants get service by weight, however it is split, and nobody is far behind."""

from hypothesis import given, settings
from hypothesis import strategies as st

from parrotserve.criteria import Objective
from parrotserve.graph.events import NewRequest
from parrotserve.graph.objects import Deduction, Request, Session, TaskGroup, Times, Variable
from parrotserve.scheduler.lines import TURN_SECONDS, Lines

ARRIVALS = iter(range(1, 1 << 30))


def request(tenant: str = "t", *, session: str = "s", objective: Objective = Objective.THROUGHPUT) -> Request:
    number = next(ARRIVALS)
    spec = NewRequest(id=f"r{number}", function="f", model="m", segments=())
    owner = Session(id=session, tenant=tenant, lease_seconds=1.0, began=0.0)
    made = Request(spec=spec, session=owner, inputs=(), outputs=(), times=Times(submitted=0.0), objective=objective)
    made.arrival = number
    return made


def take(lines: Lines, *, pressing: bool | None = None) -> Request:
    """Whoever is next."""
    if pressing is None:
        pressing = lines.any(pressing=True) and lines.pressing_first()
    line = lines.next(pressing=pressing)
    assert line is not None
    head = line.head(pressing=pressing)
    assert head is not None
    return head


def served(lines: Lines, rounds: int, seconds: float = 1.0) -> list[str]:
    """Tenants in the order in which their requests are served."""
    order = []
    for _ in range(rounds):
        head = take(lines)
        lines.serve(head, seconds)
        lines.check_integrity()
        order.append(head.session.tenant)
    return order


def test_requests_of_one_tenant_go_by_objective_and_then_by_arrival():
    lines = Lines()
    late = [request(objective=objective) for objective in (Objective.THROUGHPUT, Objective.GROUP, Objective.LATENCY)]
    early = request(objective=Objective.LATENCY)
    for one in (*late, early):
        lines.put(one)
    order = []
    for _ in range(4):
        order.append(take(lines))
        lines.serve(order[-1], 1.0)
    assert order == [late[2], early, late[1], late[0]]


def test_members_of_a_group_stand_together_where_the_first_one_does():
    lines = Lines()
    result = Variable(declared=None, tenant="t")  # type: ignore[arg-type]
    first, between, second = (request(objective=Objective.GROUP) for _ in range(3))
    for group, members in (TaskGroup(result, 1), [first, second]), (TaskGroup(result, 2), [between]):
        group.first = members[0].arrival
        for one in members:
            one.deduced = Deduction(Objective.GROUP, result, group.level, group)
    for one in (between, second, first):
        lines.put(one)
    order = []
    for _ in range(3):
        order.append(take(lines))
        lines.serve(order[-1], 0.0)
    assert order == [first, second, between]


def test_sessions_do_not_make_a_tenant_bigger():
    lines = Lines()
    for number in range(30):
        lines.put(request("many", session=f"s{number}"))
    for _ in range(10):
        lines.put(request("one"))
    assert served(lines, 20).count("one") == 10


def test_weights_are_shares():
    lines = Lines()
    lines.weigh("big", 3.0)
    for _ in range(40):
        lines.put(request("big"))
        lines.put(request("small"))
    assert served(lines, 40).count("big") == 30
    lines.weigh("big", 1.0)
    assert served(lines, 10).count("small") in (5, 6)


def test_what_was_expected_is_corrected_by_what_it_took():
    lines = Lines()
    for _ in range(20):
        lines.put(request("cheap"))
        lines.put(request("dear"))
    order = []
    for _ in range(18):
        head = take(lines)
        lines.serve(head, 1.0)
        lines.settle(head.session.tenant, 1.0 if head.session.tenant == "dear" else 0.0)
        order.append(head.session.tenant)
    assert order.count("cheap") == 2 * order.count("dear")


def test_nobody_saves_up_by_being_idle():
    lines = Lines()
    for _ in range(100):
        lines.put(request("busy"))
    served(lines, 50)
    for _ in range(50):
        lines.put(request("late"))
    assert served(lines, 20).count("late") in (10, 11)


def test_who_comes_finds_nobody_before_it_who_was_charged_too_much_and_got_it_back():
    lines = Lines()
    for _ in range(100):
        lines.put(request("busy"))
    running = []
    for _ in range(40):
        running.append(take(lines))
        lines.serve(running[-1], 1.0)
    for one in running:
        lines.settle(one.session.tenant, -0.9)
    lines.put(request("late"))
    assert "late" in served(lines, 2)


def test_what_tenants_received_is_counted_by_weight_from_where_others_are_when_they_come():
    lines = Lines()
    lines.weigh("heavy", 2.0)
    one, two = request("light"), request("heavy")
    lines.put(one)
    lines.serve(one, 60.0)
    lines.receive("light", 5.0)
    lines.put(two)
    lines.serve(two, 60.0)
    lines.receive("heavy", 3.0)
    lines.receive("light", 1.0)
    lines.check_integrity()
    received = {name: line.received for name in ("light", "heavy") if (line := lines.line_of(name))}
    assert received == {"light": 6.0, "heavy": 6.5}


def test_who_comes_while_no_engine_runs_anything_begins_where_those_are_who_wait():
    lines = Lines()
    one = request("busy")
    lines.put(one)
    lines.put(request("busy"))
    lines.serve(one, 1.0)
    lines.receive("busy", 5.0)
    lines.settle("busy", -1.0)
    lines.put(request("late"))
    late = lines.line_of("late")
    assert late is not None
    assert late.received == 5.0


def test_without_fairness_there_is_one_line():
    lines = Lines(fair=False)
    for tenant in ("a", "a", "a", "b"):
        lines.put(request(tenant))
    assert served(lines, 4) == ["a", "a", "a", "b"]


def test_a_line_that_is_empty_is_forgotten():
    lines = Lines()
    for number in range(100):
        one = request(f"t{number}")
        lines.put(one)
        lines.serve(one, 1.0)
        lines.settle(one.session.tenant, 0.0)
    lines.put(request("last"))
    assert len(lines._lines) < 100


COSTS = st.floats(0.01, 2.0)
MOST = 2.0


@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(0.25, 4.0), min_size=2),
    st.lists(st.tuples(COSTS, st.integers(0, 3), st.booleans()), min_size=1, max_size=200),
)
@settings(max_examples=200)
def test_of_tenants_that_always_wait_none_is_ahead_by_more_than_a_request_and_a_turn(
    weights: dict[str, float], rounds: list[tuple[float, int, bool]]
):
    """A turn goes on while it has not ended, as it does for groups and for requests that begin alike."""
    lines = Lines()
    service = dict.fromkeys(weights, 0.0)
    for tenant, weight in weights.items():
        lines.weigh(tenant, weight)
        for _ in range(len(rounds) * 4 + 1):
            lines.put(request(tenant))
    for seconds, more, corrected in rounds:
        head = take(lines)
        line = lines.next(pressing=False)
        assert line is not None
        end = lines.turn_ends(line)
        for number in range(1 + more):
            if number and line.virtual >= end:
                break
            head = line.head(pressing=False)
            assert head is not None
            lines.serve(head, MOST if corrected else seconds)
            if corrected:  # it was expected to take more than it did
                lines.settle(head.session.tenant, seconds - MOST)
            service[head.session.tenant] += seconds
        lines.check_integrity()
        for one, weight in weights.items():
            for other, its in weights.items():
                lag = service[one] / weight - service[other] / its
                assert lag <= (MOST + TURN_SECONDS) / weight + MOST / its + 1e-6


def test_suspects_of_all_tenants_take_turns_with_one_another_and_with_other_requests():
    lines, order = Lines(), list[str]()
    for tenant, suspects in (("many", 20), ("few", 2)):
        for _ in range(suspects):
            lines.put_suspect(request(tenant))
    for _ in range(3):
        lines.put(request("none"))
    assert len(lines) == 3
    for _ in range(9):
        suspect = lines.next_suspect()
        lines.serve(suspect or take(lines), 1.0)
        lines.check_integrity()
        order.append(suspect.session.tenant if suspect else "none")
    assert order == ["many", "few", "none"] * 2 + ["many", "none", "many"]


def test_a_suspect_that_is_taken_back_leaves_its_line():
    lines = Lines()
    one, other = request("a"), request("a")
    lines.put_suspect(one)
    lines.put_suspect(other)
    lines.discard(one)
    lines.check_integrity()
    assert lines.next_suspect() is other
    lines.discard(other)
    lines.check_integrity()
    assert lines.next_suspect() is None


def test_without_fairness_suspects_come_first():
    lines = Lines(fair=False)
    lines.put(request("early"))
    suspect = request("late")
    lines.put_suspect(suspect)
    lines.serve(request("late"), 100.0)
    assert lines.next_suspect() is suspect
