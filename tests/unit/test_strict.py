"""Numbers and truths of the wire are taken as they are written, whichever way a body is read."""

import json
from typing import Any

import msgspec
import pytest
from pydantic import TypeAdapter, ValidationError

from parrotserve.protocol import Submit
from parrotserve.sampling import Sampling
from parrotserve.server.openai.wire import CompletionRequest

SUBMIT, COMPLETION = TypeAdapter(Submit), TypeAdapter(CompletionRequest)


def output(**sampling: Any) -> dict[str, Any]:
    return requesting({"kind": "output", "variable": "a", "sampling": sampling})


def requesting(segment: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"session": "s", "requests": [{"id": "r", "segments": [segment]} | fields]}


def calling(**fields: Any) -> dict[str, Any]:
    return {"session": "s", "calls": [{"id": "c", "function": "f", "inputs": [], "output": "a"} | fields]}


def truncating(tokens: Any) -> dict[str, Any]:
    transform = {"name": "truncate", "args": [tokens]}
    return requesting({"kind": "input", "variable": "a", "transforms": [transform]})


def refused(adapter: TypeAdapter[Any], body: dict[str, Any]) -> set[tuple[str, str]]:
    """The last part of each place that is wrong and why, of the text and of the parsed value alike."""
    found: list[set[tuple[str, str]]] = []
    for check, given in ((adapter.validate_json, json.dumps(body)), (adapter.validate_python, body)):
        with pytest.raises(ValidationError) as caught:
            check(given)
        found.append({(str(error["loc"][-1]), error["type"]) for error in caught.value.errors()})
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("value", [True, "5", "true"])
@pytest.mark.parametrize(
    "name", ["max_tokens", "top_k", "seed", "min_tokens", "logprobs", "temperature", "top_p", "min_p",
             "presence_penalty", "frequency_penalty", "repetition_penalty"]
)  # fmt: skip
def test_a_sampling_s_numbers(name: str, value: Any):
    kind = "int_type" if name in ("max_tokens", "top_k", "seed", "min_tokens", "logprobs") else "float_type"
    assert refused(SUBMIT, output(**{name: value})) == {(name, kind)}
    assert refused(COMPLETION, {"prompt": "x", name: value}) == {(name, kind)}


@pytest.mark.parametrize(
    ("body", "place"),
    [
        (output(ignore_eos=1), "ignore_eos"),
        (output(keep_space="yes"), "keep_space"),
        (output(max_tokens=5.0), "max_tokens"),
        (output(logit_bias={"5": True}), "5"),
        (requesting({"kind": "tokens", "tokens": [True]}), "0"),
        (requesting({"kind": "tokens", "tokens": ["5"]}), "0"),
        (requesting({"kind": "role", "role": "user", "verbatim": 1}), "verbatim"),
        (requesting({"kind": "text", "text": "x"}, chat="no"), "chat"),
        (calling(timeout=True), "timeout"),
        (calling(timeout="5"), "timeout"),
        (calling(sandbox={"source": "", "name": "f", "line": True}), "line"),
        ({"session": "s", "lease_seconds": True}, "lease_seconds"),
        ({"session": "s", "wait": [{"variable": "a", "timeout": "5"}]}, "timeout"),
        ({"session": "s", "wait": [{"variable": "a", "stream": 1}]}, "stream"),
    ],
)
def test_other_fields_of_a_batch(body: dict[str, Any], place: str):
    assert {where for where, _ in refused(SUBMIT, body)} == {place}


def test_a_transform_s_arguments():
    assert len(refused(SUBMIT, truncating(True))) == 2  # neither a number nor a text
    assert SUBMIT.validate_python(truncating("5")).requests[0].segments[0].transforms[0].args == ("5",)


@pytest.mark.parametrize("wrong", [{"wait": 1}, {"wait": "false"}, {"lease_seconds": True}, {"lease_seconds": "5"}])
def test_the_parrot_object_of_openai_s_requests(wrong: dict[str, Any]):
    ((place, _),) = refused(COMPLETION, {"prompt": "x", "parrot": wrong})
    assert place in wrong


def test_what_is_written_rightly_is_taken():
    body = output(max_tokens=5, temperature=1, seed=None, ignore_eos=True, logit_bias={"5": 1}, stop=["x"])
    expected = Sampling(max_tokens=5, temperature=1.0, ignore_eos=True, logit_bias={5: 1.0}, stop=("x",))
    for taken in (SUBMIT.validate_json(json.dumps(body)), SUBMIT.validate_python(body)):
        assert taken.requests[0].segments[0].sampling == expected
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(expected), type=Sampling) == expected
