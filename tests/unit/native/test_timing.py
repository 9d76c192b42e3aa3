"""What steps held and how long they took: who is told of it, and when."""

from token_backend import Bench, fill, generate

from parrotserve.engines.base import Pause, StepsTimed
from parrotserve.ids import RequestId


def test_a_stream_has_the_time_of_every_step():
    bench = Bench(speculate=False)
    bench.open("a", fill("prompt"), generate(5, stream=True, ignore_eos=True))
    bench.run()
    assert [(step.steps, step.prefill_tokens, step.decode_rows) for step in bench.times] == [
        (1, 6, 0),
        *([(1, 0, 1)] * 4),
    ]
    assert [step.attended for step in bench.times] == [1 + 2 + 3 + 4 + 5 + 6, 7, 8, 9, 10]
    assert [step.kv_tokens for step in bench.times] == [6, 7, 8, 9, 10]
    assert [step.seconds for step in bench.times] == [0.5] * 5


def test_steps_that_tell_nothing_else_are_summed_until_there_is_something_to_tell():
    bench = Bench(speculate=False)
    bench.step_seconds = 0.001
    bench.open("a", fill("prompt"), generate(5, ignore_eos=True))
    told = [bench.core.step() for _ in range(5)]
    assert told[:4] == [[]] * 4
    prompt, decoding = [event for event in told[4] if isinstance(event, StepsTimed)]
    assert (prompt.steps, prompt.prefill_tokens, prompt.decode_rows) == (1, 6, 0)
    assert (decoding.steps, decoding.prefill_tokens, decoding.decode_rows) == (4, 0, 4)


def test_steps_of_unlike_width_are_not_summed():
    bench = Bench(speculate=False)
    bench.step_seconds = 0.001
    for number in range(9):
        bench.open(str(number), fill("p"), generate(3 + 3 * (number == 0), ignore_eos=True))
    bench.run()
    assert {step.decode_rows // step.steps for step in bench.times if not step.prefill_tokens} == {9, 1}


def test_steps_that_tell_nothing_for_long_are_told_alone():
    bench = Bench(speculate=False)
    bench.step_seconds = 0.04
    bench.open("a", fill("prompt"), generate(5, ignore_eos=True))
    bench.run()
    assert [step.steps for step in bench.times] == [1, 2, 2]


def test_keys_that_a_group_reads_once_count_once():
    prompt = "a prefix that two sequences have in common, long enough to be worth a span" * 8
    bench = Bench(prefill_chunk=4096)
    for name in ("a", "b"):
        bench.open(name, fill(prompt), generate(4, ignore_eos=True, stream=True))
    bench.run()
    assert max(step.attended - step.kv_tokens for step in bench.times if step.decode_rows == 2) >= 512


def test_times_alone_are_no_news():
    bench = Bench(speculate=False)
    bench.step_seconds = 0.001
    bench.open("a", fill("prompt"), generate(50, ignore_eos=True))
    bench.step()
    bench.core.handle(Pause(RequestId("a"), 1))
    assert bench.core.idle
