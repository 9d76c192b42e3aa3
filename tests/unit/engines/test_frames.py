"""Frames between a service and its engines' processes."""

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.criteria import Objective
from parrotserve.engines.base import (
    Cancel,
    Capability,
    Command,
    EndStatus,
    EngineDescription,
    Event,
    Extend,
    Fill,
    Generate,
    Heartbeat,
    Open,
    Pause,
    Release,
    Resume,
    Retain,
    SegmentFinished,
    SequenceEnded,
    TokensGenerated,
    Update,
)
from parrotserve.engines.frames import (
    Events,
    FrameBuffer,
    FromEngine,
    Ready,
    Refused,
    decode_commands,
    decode_from_engine,
    encode,
    read_frame,
)
from parrotserve.ids import RequestId
from parrotserve.sampling import FinishReason, Sampling, TokenLogprob, Usage

A = RequestId("a")
SAMPLING = Sampling(
    temperature=0.5, stop=("x",), seed=2**63 - 1, logit_bias={3: -1.5}, logprobs=2, schema={"type": "object"}
)
COMMANDS: list[Command] = [
    Open(
        sequence=A,
        epoch=1,
        segments=(Fill(tokens=(1, 2)), Fill(text="é"), Fill(), Generate(sampling=SAMPLING, delivered=(5,))),
        salt="s",
        objective=Objective.GROUP,
    ),
    Extend(sequence=A, epoch=1, segment=2, offset=3, tokens=(4,), last=False),
    Update(sequence=A, epoch=1, objective=Objective.LATENCY, stream=(3,)),
    Pause(A, 1),
    Resume(A, 1),
    Cancel(A, 1),
    Retain("key", "salt", (1, 2)),
    Release("key"),
]
LOGPROB = TokenLogprob(7, -0.5, ((7, -0.5), (8, -1.5)))
EVENTS: list[Event] = [
    TokensGenerated(sequence=A, epoch=1, segment=3, offset=1, tokens=(7,), text="t", logprobs=(LOGPROB,)),
    SegmentFinished(sequence=A, epoch=1, segment=3, tokens=(5, 7), text="xt", reason=FinishReason.STOP),
    SequenceEnded(sequence=A, epoch=1, status=EndStatus.FAILED, usage=Usage(1, 2, 3, 4.5), error=("code", "why")),
    Heartbeat(running=1, waiting=2, used_pages=3, cached_pages=4, retained_pages=5, free_pages=6, steps=7),
]
DESCRIPTION = EngineDescription(
    model="m",
    context_length=1,
    cache_tokens=2,
    page_tokens=3,
    credits=4,
    capabilities=frozenset({Capability.PAUSE, Capability.TOKENS}),
)


def only_frame(data: bytes) -> bytes:
    (body,) = FrameBuffer().feed(data)
    return body


def test_every_command_arrives_as_it_was_sent():
    assert decode_commands(only_frame(encode(COMMANDS))) == COMMANDS


@pytest.mark.parametrize("message", [Ready(DESCRIPTION), Refused("code", "why"), Events(EVENTS)])
def test_everything_an_engine_says_arrives_as_it_was_said(message: FromEngine):
    assert decode_from_engine(only_frame(encode(message))) == message


@given(frames=st.lists(st.lists(st.integers(0, 255), max_size=40), max_size=5), sizes=st.lists(st.integers(1, 50)))
def test_frames_come_out_however_the_stream_is_cut(frames: list[list[int]], sizes: list[int]):
    stream = b"".join(encode(frame) for frame in frames)
    buffer, bodies = FrameBuffer(), list[bytes]()
    for size in [*sizes, len(stream) + 1]:
        bodies += buffer.feed(stream[:size])
        stream = stream[size:]
    assert [msgspec.msgpack.decode(body) for body in bodies] == frames


def test_a_stream_that_cannot_be_frames_is_refused():
    with pytest.raises(ValueError, match="corrupt"):
        list(FrameBuffer().feed(b"not frames at all"))


def test_frames_are_read_one_by_one_until_the_stream_ends():
    stream = io.BytesIO(encode([1]) + encode([2]))
    assert [read_frame(stream), read_frame(stream), read_frame(stream)] == [
        msgspec.msgpack.encode([1]),
        msgspec.msgpack.encode([2]),
        None,
    ]


@pytest.mark.parametrize("cut", [2, 5])
def test_half_a_frame_at_the_end_is_none(cut: int):
    assert read_frame(io.BytesIO(encode(["text"])[:cut])) is None
