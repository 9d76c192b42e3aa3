"""Random workloads on caches with hardly any room: everything finishes, nothing is lost, and no text changes."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from token_backend import PAGE, TOKENIZER, Bench, Model, fill, forgetful, generate, hashed, late

from parrotserve.criteria import Objective
from parrotserve.engines.base import Cancel, EndStatus, Fill, Generate, Pause, Resume, Retain, SequenceEnded, Update
from parrotserve.ids import RequestId


@dataclass(frozen=True)
class Job:
    """One sequence: `prompt`, a value that may come late, in parts, and one or two outputs. Times count steps."""

    prompt: str
    value: str
    comes_after: int | None
    outputs: tuple[int, ...]
    temperature: float
    objective: Objective
    salt: str
    arrives: int
    pauses: int | None
    cancels: int | None

    @property
    def longest(self) -> int:
        return len(self.prompt) + len(self.value) + sum(self.outputs) + len(self.outputs)

    def segments(self, seed: int, *, is_late: bool) -> list[Fill | Generate]:
        parts: list[Fill | Generate] = [fill(self.prompt), late() if is_late else fill(self.value)]
        for count in self.outputs:
            parts += [generate(count, temperature=self.temperature, seed=seed, stop=("q",)), fill(".")]
        return parts


JOBS = st.lists(
    st.builds(
        Job,
        prompt=st.sampled_from(["", "ab", "system prompt of all ", "system prompt of some ", "a prompt of its own"]),
        value=st.text(alphabet="xy", max_size=25),
        comes_after=st.none() | st.integers(2, 25),
        outputs=st.lists(st.integers(4, 14), min_size=1, max_size=2).map(tuple),
        temperature=st.sampled_from([0.0, 0.9]),
        objective=st.sampled_from(Objective),
        salt=st.sampled_from(["", "tenant"]),
        arrives=st.integers(0, 6),
        pauses=st.none() | st.none() | st.integers(0, 12),
        cancels=st.none() | st.none() | st.none() | st.integers(0, 30),
    ),
    min_size=3,
    max_size=8,
)


def alone(job: Job, seed: int, model: Model) -> list[str]:
    bench = Bench(model=model, speculate=False)
    bench.open("alone", *job.segments(seed, is_late=False))
    bench.run()
    return [event.text for event in bench.finished("alone")]


def act(bench: Bench, job: Job, name: str, seed: int, now: int) -> None:
    sequence = RequestId(name)
    if now == job.arrives:
        bench.open(
            name, *job.segments(seed, is_late=job.comes_after is not None), salt=job.salt, objective=job.objective
        )
    if job.pauses is not None and now == job.arrives + job.pauses:
        bench.core.handle(Pause(sequence, 1))
    if job.pauses is not None and now == job.arrives + job.pauses + 9:
        bench.core.handle(Resume(sequence, 1))
    if job.cancels is not None and now == job.arrives + job.cancels:
        bench.core.handle(Cancel(sequence, 1))
    if job.comes_after is not None:
        parts = max(1, len(job.value) // 3)
        place = now - job.arrives - job.comes_after
        if 0 <= place < parts:
            last = place == parts - 1
            part = job.value[place * 3 : None if last else place * 3 + 3]
            bench.extend(name, 1, part, offset=place * 3, last=last)
    if now == job.arrives + 7:
        bench.core.handle(Update(sequence=sequence, epoch=1, objective=Objective.LATENCY, stream=(2,)))


@given(
    jobs=JOBS,
    chunk=st.sampled_from([1, 8, 64]),
    max_running=st.sampled_from([1, 2, 8]),
    share=st.booleans(),
    model=st.sampled_from([hashed, forgetful]),
)
def test_a_cache_with_room_for_little_more_than_one_finishes_everything(
    jobs: list[Job], chunk: int, max_running: int, share: bool, model: Model
):
    pages = -(-max(job.longest for job in jobs) * 12 // 10 // PAGE) + 1
    bench = Bench(pages=pages, prefill_chunk=chunk, max_running=max_running, share=share, model=model)
    bench.core.handle(Retain("kept", "", tuple(TOKENIZER.encode("system prompt of all "))))
    for now in range(60):
        for number, job in enumerate(jobs):
            act(bench, job, str(number), number, now)
        bench.step()
    bench.run()
    ends = [event for event in bench.events if isinstance(event, SequenceEnded)]
    assert sorted(end.sequence for end in ends) == sorted(str(number) for number in range(len(jobs)))
    for number, job in enumerate(jobs):
        texts = [event.text for event in bench.finished(str(number))]
        if bench.status(str(number)) is EndStatus.DONE:
            assert texts == alone(job, number, model)
        else:
            assert job.cancels is not None
    stats = bench.cache.stats()
    assert stats.used == 0
    assert stats.free + stats.cached == pages
