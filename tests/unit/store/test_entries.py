"""What is written to the journal comes back as it was."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.errors import ContextExceeded
from parrotserve.graph.causes import Cause
from parrotserve.graph.events import KnownFailure, NewCall, NewRequest, NewVariable, Submitted, Wait
from parrotserve.native_calls import SandboxedCall, Slot
from parrotserve.sampling import FinishReason, Sampling, TokenLogprob, ToolCalls, Usage
from parrotserve.segments import Input, Output, Text
from parrotserve.store.entries import (
    FailureEntry,
    PieceEntry,
    ValueEntry,
    decoded,
    decoded_batch,
    encoded,
    encoded_batch,
)
from parrotserve.transforms import Transform

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = TEXTS.filter(bool)
TOKENS = st.lists(st.integers(0, 200_000), max_size=3).map(tuple)
TRANSFORMS = st.one_of(
    st.just(Transform("strip")),
    st.integers(1, 9).map(lambda last: Transform("lines", (1, last))),
    st.just(Transform("json", ("a.b",))),
)
SAMPLINGS = st.builds(
    Sampling,
    max_tokens=st.integers(1, 9),
    temperature=st.sampled_from([0.0, 0.7, 1]),
    stop=st.lists(NAMES, max_size=2).map(tuple),
    seed=st.none() | st.integers(0, 2**63 - 1),
    logit_bias=st.dictionaries(st.integers(0, 9), st.sampled_from([-1.5, 2]), max_size=2),
    logprobs=st.none() | st.integers(0, 20),
    schema=st.none() | st.just({"type": "object", "properties": {"a": {"enum": [1, "x", None]}}}),
    keep_space=st.booleans(),
)
CALLS = st.none() | st.builds(ToolCalls, schema=st.just({"type": "object"}), tagged=st.booleans())
SEGMENTS = st.one_of(
    st.builds(Text, TEXTS, template=st.booleans(), tokens=TOKENS, private=st.booleans()),
    st.builds(Input, NAMES, st.lists(TRANSFORMS, max_size=2).map(tuple)),
    st.builds(Output, NAMES, SAMPLINGS, CALLS),
)
REQUESTS = st.builds(
    NewRequest,
    id=NAMES,
    function=TEXTS,
    model=NAMES,
    segments=st.lists(SEGMENTS, max_size=4).map(tuple),
    published=st.integers(0, 3),
    text_tokens=st.none() | st.integers(0, 9),
)
SANDBOXED = st.builds(
    SandboxedCall,
    name=NAMES,
    source=TEXTS,
    file=TEXTS,
    line=st.integers(1, 9),
    arguments=st.lists(TEXTS | st.builds(Slot, NAMES), max_size=3).map(tuple),
    seconds=st.none() | st.just(0.5),
)
NATIVE = st.builds(
    NewCall,
    id=NAMES,
    function=TEXTS,
    inputs=st.lists(NAMES, max_size=2).map(tuple),
    output=NAMES,
    timeout=st.none() | st.just(2.0),
    sandboxed=st.none() | SANDBOXED,
)
BATCHES = st.builds(
    Submitted,
    session=NAMES,
    tenant=NAMES,
    lease_seconds=st.just(30.0),
    variables=st.lists(st.builds(NewVariable, NAMES, st.none() | NAMES, st.none() | TEXTS), max_size=2).map(tuple),
    requests=st.lists(REQUESTS, max_size=2).map(tuple),
    calls=st.lists(NATIVE, max_size=2).map(tuple),
    waits=st.lists(st.builds(Wait, NAMES, st.sampled_from(["latency", "throughput"])), max_size=2).map(tuple),
)


@given(batch=BATCHES)
def test_a_batch_comes_back_as_it_was(batch: Submitted):
    back = decoded_batch(encoded_batch(batch))
    assert back == batch
    assert [(one.published, one.text_tokens) for one in back.requests] == [
        (one.published, one.text_tokens) for one in batch.requests
    ]


LOGPROBS = (TokenLogprob(3, -0.25, ((3, -0.25), (4, -1.5))),)


@pytest.mark.parametrize(
    "entry",
    [
        ValueEntry(value=""),
        ValueEntry(value="text", reason=FinishReason.LENGTH, logprobs=LOGPROBS, tokens=(1, 2)),
        PieceEntry(tokens=(1,), text="", logprobs=LOGPROBS),
        Usage(1, 2, 3, 0.5),
    ],
)
def test_an_entry_comes_back_as_it_was(entry: Any):
    assert decoded(encoded(entry), type(entry)) == entry


@pytest.mark.parametrize("origin", ["r-1", None])
def test_a_failure_comes_back_with_its_error(origin: str | None):
    error = ContextExceeded("It is too long.", tokens="9000")
    cause = Cause(error=error, sentence="'F' (r-1) failed", origin=origin, became="was cancelled")
    back = decoded(encoded(FailureEntry.of(KnownFailure(cause=cause, by_input=True))), FailureEntry).failure()
    assert (back.by_input, back.cancelled) == (True, False)
    assert (back.cause.sentence, back.cause.origin, back.cause.became) == (cause.sentence, origin, "was cancelled")
    assert type(back.cause.error) is ContextExceeded
    assert (back.cause.error.message, back.cause.error.details) == (error.message, error.details)
