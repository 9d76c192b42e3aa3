"""Sampling parameters: the defaults are greedy, and what no engine could honour is refused by name."""

import math

import pytest

from parrotserve.errors import InvalidSampling
from parrotserve.sampling import MAX_LOGPROBS, Sampling


def test_the_defaults_are_greedy():
    assert Sampling() == Sampling(temperature=0.0, max_tokens=256, top_p=1.0, top_k=0, min_p=0.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("stop", ("end", "")),
        ("seed", -1),
        ("seed", 2**63),
        ("min_tokens", -1),
        ("min_tokens", 257),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("temperature", 1e-320),
        ("top_k", 2**63),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-320),
        ("max_tokens", True),
        ("temperature", True),
        ("seed", False),
        ("logprobs", True),
        ("logit_bias", {-1: 1.0}),
        ("logit_bias", {1: True}),
        ("logit_bias", {1: math.inf}),
        ("logit_bias", {1: math.nan}),
        ("logit_bias", {1: 10**400}),
        ("logprobs", MAX_LOGPROBS + 1),
    ],
)
def test_a_value_that_no_engine_could_honour_is_refused_by_name(name: str, value: object):
    with pytest.raises(InvalidSampling, match=f"^{name}="):
        Sampling(**{name: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_tokens", 1),
        ("temperature", 100.0),
        ("temperature", 1e-300),
        ("top_k", 2**63 - 1),
        ("top_p", 1e-9),
        ("min_p", 1.0),
        ("seed", 2**63 - 1),
        ("min_tokens", 256),
        ("repetition_penalty", 10.0),
        ("repetition_penalty", 0.01),
        ("logit_bias", {0: -100.0}),
        ("logprobs", 0),
    ],
)
def test_the_limits_themselves_are_allowed(name: str, value: object):
    assert getattr(Sampling(**{name: value}), name) == value  # type: ignore[arg-type]
