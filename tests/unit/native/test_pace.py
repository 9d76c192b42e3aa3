"""What the bound on steps makes of mixed work, on a virtual clock."""

import math
import statistics
from itertools import pairwise

import pytest
from timed_bench import Timed

from parrotserve.bounds import SLOWDOWN
from parrotserve.criteria import Objective
from parrotserve.engines.base import EndStatus, SequenceEnded, TokensGenerated

# --- Mixed work ---------------------------------------------------------------------------------------------


def a_chat_decodes(
    *,
    place: int = 0,
    stages: int = 0,
    stream: bool = True,
    salt: str = "",
    tokens: int = 100,
    **settings: object,
) -> Timed:
    bench = Timed(**settings)
    bench.warm_up()
    bench.work("chat", objective=Objective.LATENCY, place=place, stages=stages, stream=stream, salt=salt, tokens=tokens)
    bench.step()
    return bench


def chat_while_prompts_are_read(**settings: object) -> Timed:
    bench = a_chat_decodes(**settings)
    for place in range(6):
        bench.work(f"bulk {place}", prompt=str(place) * 1000, tokens=10, objective=Objective.THROUGHPUT)
    bench.run()
    return bench


def test_long_prompts_do_not_hold_up_whoever_waits_for_the_next_token():
    bench = chat_while_prompts_are_read()
    bound = SLOWDOWN * 0.005
    assert max(bench.gaps("chat")) < 1.5 * bound
    assert max(bench.gaps("chat")[5:]) < 1.05 * bound  # by then the model has seen enough
    # Most of the time that is left is used: prompts are read in many steps, each nearly as long as it may be.
    long = [gap for gap in bench.gaps("chat") if gap > 0.8 * bound]
    assert len(long) > 50
    assert all(bench.status(f"bulk {place}") is EndStatus.DONE for place in range(6))


def test_the_bound_is_kept_though_nobody_was_ever_alone():
    bench = Timed(start=0.006, few=0.003)
    for place in range(20):
        bench.work(f"bulk {place}", prompt=f"{place} " * 20, tokens=400, objective=Objective.THROUGHPUT)
    for _ in range(40):
        bench.step()
    bench.work("chat", objective=Objective.LATENCY, tokens=200)
    bench.run()
    assert statistics.fmean(bench.gaps("chat")[100:]) < SLOWDOWN * 0.0032


def test_without_a_pace_they_do():
    assert max(chat_while_prompts_are_read(adapt=False).gaps("chat")) > 0.1


def test_a_bound_that_is_set_is_kept():
    assert max(chat_while_prompts_are_read(tpot=0.012).gaps("chat")) < 0.0135


def test_without_latency_sensitive_work_steps_are_as_large_as_they_can_be():
    bench = Timed()
    bench.warm_up()
    for place in range(6):
        bench.work(f"bulk {place}", prompt=str(place) * 1000, tokens=10, objective=Objective.THROUGHPUT)
    bench.time += 20.0
    bench.step()
    assert len(bench.backend.steps[-1].tokens) == 512


def test_where_others_come_who_are_waited_for_prompts_of_who_is_not_are_read_in_steps_that_just_pay():
    bench = a_chat_decodes()
    for place in range(6):
        bench.work(f"bulk {place}", prompt=str(place) * 1000, tokens=10, objective=Objective.THROUGHPUT)
    while "chat" not in bench.ends:
        bench.step()
    bench.step()
    assert 200 < len(bench.backend.steps[-1].tokens) < 300  # 10 times 5 ms, of 0.2 ms a row, is 250
    asked = bench.time
    bench.work("next", prompt="n" * 200, tokens=5, objective=Objective.LATENCY)
    bench.step()
    assert bench.time - asked < 0.06  # its own prompt takes 0.04
    assert "next" in bench.told


def prompt_tokens_after_a_chat(objective: Objective, *, seconds: float) -> int:
    bench = a_chat_decodes()
    while "chat" not in bench.ends:
        bench.step()
    bench.work("long", prompt="l" * 3000, tokens=10, objective=objective)
    bench.time += seconds
    bench.step()
    return len(bench.backend.steps[-1].tokens)


def test_prompts_of_a_task_group_may_make_such_steps_longer_for_somebody_waits_for_them_too():
    assert 200 < prompt_tokens_after_a_chat(Objective.THROUGHPUT, seconds=2.0) < 300
    assert 400 < prompt_tokens_after_a_chat(Objective.GROUP, seconds=2.0) < 512


def test_where_nobody_has_come_for_long_steps_are_large():
    for objective in (Objective.THROUGHPUT, Objective.GROUP):
        assert prompt_tokens_after_a_chat(objective, seconds=4.0) == 512


def test_more_throughput_rows_than_there_is_time_for_take_turns_by_arrival():
    bench = Timed(tpot=0.0059)  # time for fifteen rows
    bench.warm_up()
    for place in range(30):
        bench.work(f"bulk {place:02}", tokens=40, objective=Objective.THROUGHPUT)
    for _ in range(3):
        bench.step()
    bench.work("chat", objective=Objective.LATENCY, tokens=200)
    bench.run()
    ends = [event.sequence for event in bench.events if isinstance(event, SequenceEnded)]
    assert ends.index("bulk 00") < ends.index("bulk 29") < ends.index("chat")
    assert sorted(bench.gaps("chat"))[-5] < 0.0066


@pytest.mark.parametrize("tpot", [0.007, 0.004])  # a step reads for 5 ms
def test_everybody_gets_the_same_text_at_any_pace(tpot: float):
    paced, free = chat_while_prompts_are_read(tpot=tpot), chat_while_prompts_are_read(adapt=False)
    for name in ("chat", "bulk 0", "bulk 5"):
        assert paced.text(name) == free.text(name)


# --- Earlier work and later work ------------------------------------------------------------------------------


def two_jobs(*, apart: bool = True, **settings: object) -> Timed:
    """Of eight prompts each; `apart` unless they take the same precedence."""
    bench = Timed(**settings)
    bench.warm_up()
    bench.time = 0.0
    for job in (1, 2):
        for member in range(8):
            prompt = f"{job} {member} " * 100
            bench.work(
                f"job {job}.{member}", prompt=prompt, tokens=30, objective=Objective.THROUGHPUT, place=job * apart
            )
    bench.run()
    return bench


def test_earlier_work_ends_long_before_later_work_though_all_of_it_does_not_take_much_longer():
    apart, mixed = two_jobs(), two_jobs(apart=False)
    assert apart.ended_at("job 1") < 0.75 * mixed.ended_at("job 1")
    assert apart.ended_at("job 2") < 1.1 * mixed.ended_at("job 2")


def test_prompts_of_later_work_make_steps_in_which_earlier_work_decodes_not_much_longer():
    bench = two_jobs()
    last_prompt = max(times[0] for name, times in bench.told.items() if name.startswith("job 1"))
    decoding = [time for time in bench.told["job 1.7"] if time > last_prompt]
    alone = math.hypot(0.005, 8 * 0.0002)
    assert max(after - before for before, after in pairwise(decoding)) < 2.2 * alone


def test_who_is_waited_for_is_not_held_up_by_earlier_work():
    bench = Timed()
    bench.warm_up()
    for member in range(4):
        bench.work(f"job {member}", prompt=str(member) * 500, objective=Objective.THROUGHPUT, place=1)
    for _ in range(10):
        bench.step()
    bench.work("chat", prompt="c" * 400, tokens=5, objective=Objective.LATENCY, place=2)
    asked = bench.time
    bench.run()
    assert bench.told["chat"][0] - asked < 0.11  # two steps; alone it takes one of 80 ms


def largest_step_of_a_prompt_beside_a_chat(
    *, place: int, stream: bool = False, salt: str = "", tokens: int = 100, stages: tuple[int, int] = (0, 0)
) -> int:
    """Rows, of a prompt of 400 tokens of the second piece of work; the chat, of this one, decodes. `stages` follow
    after the chat, and after the prompt."""
    bench = a_chat_decodes(place=place, stages=stages[0], stream=stream, salt=salt, tokens=tokens)
    before = len(bench.backend.steps)
    bench.work(
        "chain", prompt="c" * 400, tokens=5, objective=Objective.LATENCY, place=2, stages=stages[1], stream=False
    )
    while "chat" not in bench.ends:
        bench.step()
    return max(len(batch.tokens) for batch in bench.backend.steps[before:])


@pytest.mark.parametrize(("place", "tokens"), [(2, 10), (3, 10), (1, 100)])
def test_a_prompt_that_is_waited_for_is_read_whole_beside_what_is_later_or_takes_longer(place: int, tokens: int):
    assert largest_step_of_a_prompt_beside_a_chat(place=place, tokens=tokens) == 401


@pytest.mark.parametrize(
    ("place", "stream", "salt", "tokens"),
    [(1, False, "", 10), (1, True, "", 100), (3, True, "", 100), (3, False, "another tenant", 100)],
)
def test_it_is_not_where_others_read_along_or_are_soon_done_or_are_another_tenant(
    place: int, stream: bool, salt: str, tokens: int
):
    assert largest_step_of_a_prompt_beside_a_chat(place=place, stream=stream, salt=salt, tokens=tokens) < 50


@pytest.mark.parametrize(("stages", "passes"), [((2, 1), True), ((2, 2), False), ((0, 1), False), ((3, 0), True)])
def test_later_work_passes_earlier_work_only_where_it_is_nearer_to_its_end(stages: tuple[int, int], passes: bool):
    assert (largest_step_of_a_prompt_beside_a_chat(place=1, stages=stages) == 401) is passes
    assert largest_step_of_a_prompt_beside_a_chat(place=3, stages=stages) == 401  # it is not later


def test_prompts_that_are_waited_for_are_read_one_after_the_other_beside_a_stream():
    bench = a_chat_decodes()
    for number in range(4):
        bench.work(f"next {number}", prompt=str(number) * 200, tokens=5, objective=Objective.LATENCY)
    bench.run()
    began = [bench.told[f"next {number}"][0] for number in range(4)]
    alone = began[0] - bench.told["chat"][0]
    assert all(0.5 * alone < after - before < 1.5 * alone for before, after in pairwise(began))


def test_later_work_waits_where_earlier_prompts_leave_it_neither_budget_nor_time():
    bench = Timed()
    bench.warm_up()
    bench.work("decodes", objective=Objective.THROUGHPUT, place=1)
    bench.step()
    bench.work("reads", prompt="r" * 2000, tokens=5, objective=Objective.THROUGHPUT, place=1)
    bench.work("later", prompt="l" * 600, tokens=5, objective=Objective.THROUGHPUT, place=2)
    bench.run()
    assert bench.told["reads"][-1] < bench.told["later"][0]


def test_everybody_gets_the_same_text_whoever_goes_first():
    apart, mixed = two_jobs(), two_jobs(apart=False, adapt=False)
    jobs = [name for name in apart.told if name.startswith("job")]
    assert jobs
    assert all(apart.text(name) == mixed.text(name) != "" for name in jobs)


# --- The minimum share --------------------------------------------------------------------------------------


@pytest.mark.parametrize("bulk", [1, 20])
def test_throughput_work_keeps_its_share_under_endless_latency_sensitive_work(bulk: int):
    bench = Timed(start=0.1, max_running=8)
    for place in range(bulk):
        bench.work(f"bulk {place}", tokens=4000, objective=Objective.THROUGHPUT)
    chats = 0
    decoded: list[tuple[float, bool]] = []
    while bench.time < 40.0:
        if chats < 12 + sum(isinstance(event, SequenceEnded) for event in bench.events):  # more than run at once
            bench.work(f"chat {chats}", tokens=30, objective=Objective.LATENCY)
            chats += 1
        told = [event for event in bench.step() if isinstance(event, TokensGenerated)]
        decoded += [(bench.time, event.sequence.startswith("bulk")) for event in told]
    for start in range(10, 30, 5):
        window = [is_bulk for time, is_bulk in decoded if start <= time < start + 10]
        assert 0.095 * len(window) <= sum(window) <= 0.2 * len(window)


def test_throughput_work_keeps_its_share_beside_task_groups_too():
    """These come before it, and have a share of their own."""
    bench = Timed(start=0.1, max_running=8)
    bench.work("bulk", tokens=4000, objective=Objective.THROUGHPUT)
    for place in range(4):
        bench.work(f"group {place}", tokens=4000, objective=Objective.GROUP)
    chats = 0
    decoded: list[tuple[float, str]] = []
    while bench.time < 30.0:
        if chats < 12 + sum(isinstance(event, SequenceEnded) for event in bench.events):
            bench.work(f"chat {chats}", tokens=30, objective=Objective.LATENCY)
            chats += 1
        told = [event for event in bench.step() if isinstance(event, TokensGenerated)]
        decoded += [(bench.time, event.sequence.split()[0]) for event in told]
    for start in range(10, 20, 5):
        window = [kind for time, kind in decoded if start <= time < start + 10]
        assert window.count("bulk") >= 0.095 * len(window)
        assert window.count("group") >= 0.095 * len(window)


def told_first_beside_a_job(*, shared: str = "", job: int = 3000, chat: int = 100) -> float:
    """Seconds until a chat's first token, when a job with a prompt is owed some tokens for earlier chats."""
    bench = a_chat_decodes()
    bench.run()
    bench.work("job", prompt=shared + "j" * job, tokens=5, objective=Objective.THROUGHPUT)
    bench.work("next", prompt=shared + "n" * chat, tokens=5, objective=Objective.LATENCY)
    asked = bench.time
    bench.run()
    return bench.told["next"][0] - asked


@pytest.mark.parametrize("shared", ["", "s" * 400])
def test_a_long_prompt_does_not_go_before_one_that_is_waited_for_because_its_work_is_owed_tokens(shared: str):
    step = math.hypot(0.005, 0.0002 * 512)
    assert told_first_beside_a_job(shared=shared) < 2.1 * step  # two steps; the job takes six


def test_what_is_owed_to_a_prompt_is_hardly_more_where_it_ends_soon():
    step = math.hypot(0.005, 0.0002 * (512 + 64))
    assert told_first_beside_a_job(job=170, chat=500) < 1.2 * step  # with all of the job's, it would be two steps
