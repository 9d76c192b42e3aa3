"""The reference backend with the real model."""

from itertools import takewhile

import pytest

from parrotserve.engines.native.batch import SequenceRows, build_batch
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.models.config import load_config
from parrotserve.models.registry import resolve
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer
from parrotserve.models.weights import load_weights

PAGE = 16


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(resolve("smollm2-135m"))


@pytest.fixture(scope="module")
def backend() -> ReferenceBackend:
    files = resolve("smollm2-135m")
    config = load_config(files)
    return ReferenceBackend(load_weights(files, config), config, pages=64, page_tokens=PAGE)


def greedy(backend: ReferenceBackend, prompts: list[list[int]], count: int, *, group: bool = True) -> list[list[int]]:
    """Continues all prompts in one batch, each in pages of its own but for the prefix that they all share."""
    same = takewhile(lambda tokens: len(set(tokens)) == 1, zip(*prompts, strict=False))
    shared = len(list(same)) // PAGE
    pages = [[*range(shared), *range(shared + 8 * index, shared + 8 * index + 8)] for index in range(len(prompts))]
    texts, starts = [list(prompt) for prompt in prompts], [0] * len(prompts)
    for _ in range(count):
        rows = [
            SequenceRows(text[start:], start, table, True)
            for text, start, table in zip(texts, starts, pages, strict=True)
        ]
        batch, order = build_batch(rows, PAGE, group=group, min_shared_tokens=1)
        starts = list(map(len, texts))
        for sequence, logits in zip(order, backend.step(batch).rows, strict=True):
            texts[sequence].append(int(logits.argmax()))
    return [text[len(prompt) :] for text, prompt in zip(texts, prompts, strict=True)]


@pytest.mark.model
@pytest.mark.timeout(600)
def test_it_knows_the_capital_of_france(backend: ReferenceBackend, tokenizer: Tokenizer):
    (answer,) = greedy(backend, [tokenizer.encode("The capital of France is")], 8)
    assert " Paris" in tokenizer.decode(answer)


@pytest.mark.model
@pytest.mark.timeout(600)
def test_sharing_a_prefix_and_a_batch_does_not_change_what_it_says(backend: ReferenceBackend, tokenizer: Tokenizer):
    facts = "Here are some facts about countries, each with its capital and what is eaten there. " * 2
    countries = ["France", "Italy", "Japan"]
    prompts = [tokenizer.encode(f"{facts}The capital of {country} is") for country in countries]
    together = greedy(backend, prompts, 6)
    assert together == greedy(backend, prompts, 6, group=False)
    assert together == [greedy(backend, [prompt], 6)[0] for prompt in prompts]
    for answer, capital in zip(together, ["Paris", "Rome", "Tokyo"], strict=True):
        assert capital in tokenizer.decode(answer)
