"""The real model in the 4-bit blocks of its file, from the file to its words."""

import pytest

from parrotserve.engines.base import Fill, Generate, Open, SegmentFinished
from parrotserve.engines.native.build import build_engine
from parrotserve.engines.native.kernels import variants
from parrotserve.engines.native.settings import BackendName, Launch, NativeSettings, WeightFormat
from parrotserve.ids import RequestId
from parrotserve.models.registry import DEFAULT_MODEL, resolve
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.sampling import Sampling

pytestmark = [
    pytest.mark.model,
    pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here"),
]

PROMPTS = ("The capital of France is", "One, two, three, four,", "Water freezes below zero degrees")


def test_it_knows_what_it_knew_and_says_the_same_alone_and_among_others():
    files = resolve(DEFAULT_MODEL)
    tokenizer = load_tokenizer(files)
    settings = NativeSettings(backend=BackendName.KERNELS, weights=WeightFormat.INT4, kv_bytes=32 << 20)
    _, core = build_engine(Launch(model=files.name, path=str(files.path), format=files.format, settings=settings))
    found: dict[str, str] = {}

    def work() -> None:
        while not core.idle:
            for event in core.step():
                if isinstance(event, SegmentFinished):
                    found[event.sequence] = tokenizer.decode(event.tokens)

    def ask(kind: str, prompt: str) -> None:
        segments = (Fill(tokens=tuple(tokenizer.encode(prompt))), Generate(sampling=Sampling(max_tokens=8)))
        core.handle(Open(sequence=RequestId(f"{kind} {prompt}"), epoch=1, segments=segments, salt=kind))

    for prompt in PROMPTS:
        ask("alone", prompt)
        work()
    for prompt in PROMPTS:
        ask("together", prompt)
    work()
    assert [found[f"alone {prompt}"] for prompt in PROMPTS] == [found[f"together {prompt}"] for prompt in PROMPTS]
    assert "Paris" in found["alone The capital of France is"]
    assert "five" in found["alone One, two, three, four,"]
