"""The real model's text does not depend on how it was computed: chunks, batch, grouping, late segments, drafts.

On the kernels not a token may differ, by construction; on the reference, NumPy rounds by shape, so there a token may
differ where the likeliest two were closer than 1e-3 (`scripts/parity.py` lists those).
"""

import inspect
import json
from itertools import pairwise

import pytest

from parrotserve.engines.base import EndStatus, Extend, Fill, Generate, Open, SegmentFinished, SequenceEnded
from parrotserve.engines.native.build import build_engine
from parrotserve.engines.native.kernels import variants
from parrotserve.engines.native.settings import BackendName, Launch, NativeSettings, WeightFormat
from parrotserve.ids import RequestId
from parrotserve.models.files import ModelFiles
from parrotserve.models.registry import resolve
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.sampling import Sampling

pytestmark = [
    pytest.mark.model,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here"),
]

SHARED = inspect.getdoc(json.dumps) or ""
QUESTIONS = ("Summarise this.", "What is `indent` for?", "Write a haiku on it.", "Translate the first line to French.")
LISTED = "List what it takes."
PARAMETERS = {
    "type": "array",
    "items": {
        "type": "object",
        "properties": {"name": {"type": "string"}, "default": {"type": "string"}},
        "required": ["name", "default"],
    },
}
"""What the answer to the last question is."""
MODEL = "smollm2-135m"


def prompts(files: ModelFiles) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """A long beginning that all share, and what each asks."""
    tokenizer = load_tokenizer(files)
    shared = tuple(tokenizer.encode(SHARED * 2))
    return [(shared, tuple(tokenizer.encode(f"\n\n{question}\n"))) for question in (*QUESTIONS, LISTED)]


def run(
    files: ModelFiles, weights: WeightFormat, *, together: bool = True, late: bool = False, **settings: object
) -> list[tuple[int, ...]]:
    """The tokens that follow each prompt, half of them greedy and half at temperature 0.8, and one of them in JSON."""
    launch = Launch(
        model=MODEL,
        path=str(files.path),
        format=files.format,
        settings=NativeSettings(  # type: ignore[arg-type]
            backend=BackendName.KERNELS, weights=weights, kv_bytes=128 << 20, **settings
        ),
    )
    _, core = build_engine(launch)
    found: dict[str, tuple[int, ...]] = {}

    def work() -> None:
        while not core.idle:
            for event in core.step():
                if isinstance(event, SegmentFinished):
                    found[event.sequence] = event.tokens
                assert not isinstance(event, SequenceEnded) or event.status is EndStatus.DONE

    for number, (shared, own) in enumerate(prompts(files)):
        name = RequestId(f"prompt-{number}")
        sampling = Sampling(
            max_tokens=40,
            temperature=0.8 * (number % 2),
            seed=number,
            ignore_eos=number < len(QUESTIONS),
            schema=None if number < len(QUESTIONS) else PARAMETERS,
        )
        second = Fill() if late else Fill(tokens=own)
        segments = (Fill(tokens=shared), second, Generate(sampling=sampling))
        core.handle(Open(sequence=name, epoch=1, segments=segments, salt=""))
        if late:
            core.step()
            core.handle(Extend(sequence=name, epoch=1, segment=1, tokens=own))
        if not together:
            work()
    work()
    return [found[f"prompt-{number}"] for number in range(len(found))]


@pytest.mark.parametrize("weights", WeightFormat)
def test_no_token_depends_on_how_it_was_computed(weights: WeightFormat):
    files = resolve(MODEL)
    results = {
        "chunks of 16": run(files, weights, prefill_chunk=16),
        "chunks of 64": run(files, weights, prefill_chunk=64),
        "chunks of 512": run(files, weights, prefill_chunk=512),
        "alone": run(files, weights, together=False),
        "late segments": run(files, weights, late=True),
        "not grouped": run(files, weights, group=False),
        "nothing shared": run(files, weights, share=False),
        "no drafts": run(files, weights, speculate=False),
        "one thread": run(files, weights, threads=1),
    }
    for (one, expected), (other, tokens) in pairwise(results.items()):
        assert tokens == expected, f"{other} differs from {one}"
