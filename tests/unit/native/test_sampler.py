"""From logits to tokens: every rule of `Sampling`."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.engines.native.draw import Draw, Seen, adjust, ban, touched
from parrotserve.engines.native.logits import FloatArray, WholeLogits
from parrotserve.engines.native.sampler import draw_from_row, sample
from parrotserve.engines.native.uniform import uniform
from parrotserve.sampling import Sampling, TokenLogprob


def row(*logits: float) -> FloatArray:
    return np.array(logits, dtype=np.float32)


def draw(position: int = 0, **sampling: object) -> Draw:
    return Draw(Sampling(**sampling), position=position)  # type: ignore[arg-type]


def answer(logits: FloatArray, question: Draw) -> tuple[int, TokenLogprob | None]:
    return sample(WholeLogits(logits[None, :]), {0: question})[0]


def choose(logits: FloatArray, question: Draw) -> int:
    return answer(logits, question)[0]


def adjusted(logits: FloatArray, question: Draw) -> list[float]:
    return adjust(logits.astype(np.float64), question).tolist()


def frequencies(logits: FloatArray, *, draws: int = 4000, temperature: float = 1.0, **sampling: object):
    """How often each token comes, over as many positions of one seed."""
    questions = [draw(position, temperature=temperature, seed=1, **sampling) for position in range(draws)]
    answers = sample(WholeLogits(np.tile(logits, (draws, 1))), dict(enumerate(questions)))
    counts = Counter(token for token, _ in answers.values())
    return {token: count / draws for token, count in counts.items()}


def splitmix64(seed: int, count: int) -> list[int]:
    """The first outputs of Vigna's splitmix64.c, started at `seed`."""
    word, outputs = (1 << 64) - 1, list[int]()
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & word
        mixed = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & word
        mixed = ((mixed ^ (mixed >> 27)) * 0x94D049BB133111EB) & word
        outputs.append(mixed ^ (mixed >> 31))
    return outputs


def sorted_inverse(logits: FloatArray, sampling: Sampling, number: float) -> int:
    """The rule as the module states it, over a full sort, in plain Python."""
    highest = float(logits.max())
    weights = [math.exp((float(logit) - highest) / sampling.temperature) for logit in logits]
    order = sorted(range(len(weights)), key=lambda token: (-weights[token], token))
    order = order[: sampling.top_k or len(order)]
    mass, kept, total = 0.0, [], sum(weights[token] for token in order)
    for token in order:
        if mass >= sampling.top_p * total and sampling.top_p < 1.0:
            break
        kept.append(token)
        mass += weights[token]
    kept = [token for token in kept if weights[token] >= sampling.min_p * weights[order[0]]]
    target, mass = number * sum(weights[token] for token in kept), 0.0
    for token in kept:
        mass += weights[token]
        if mass > target:
            return token
    return kept[-1]


# --- Randomness ---------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_splitmix64():
    assert splitmix64(1234567, 2) == [6457827717110365317, 3203168211198807973]  # as published
    for seed in (0, 7, 2**63 - 1):
        (start,) = splitmix64(seed, 1)
        expected = [output // 2**11 / 2**53 for output in splitmix64(start, 50)]
        assert [uniform(seed, position) for position in range(50)] == expected


def test_the_uniform_numbers_are_uniform_and_differ_by_seed_and_position():
    numbers = np.array([[uniform(seed, position) for position in range(200)] for seed in range(200)])
    assert ((numbers >= 0.0) & (numbers < 1.0)).all()
    assert len(np.unique(numbers)) == numbers.size
    assert np.histogram(numbers, bins=20)[0] == pytest.approx(numbers.size / 20, rel=0.1)
    assert abs(np.corrcoef(numbers[:, :-1].ravel(), numbers[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(numbers[:-1].ravel(), numbers[1:].ravel())[0, 1]) < 0.02


def test_a_token_depends_on_seed_and_position_and_not_on_the_batch():
    logits = np.random.default_rng(0).standard_normal((8, 300)).astype(np.float32)
    questions = [draw(place, temperature=0.9, seed=place) for place in range(8)]
    together = [token for token, _ in sample(WholeLogits(logits), dict(enumerate(questions))).values()]
    assert together == [choose(logits[place], questions[place]) for place in range(8)]


# --- Choosing -----------------------------------------------------------------------------------------------


def test_temperature_0_takes_the_likeliest_token_and_the_lowest_id_among_equals():
    assert choose(row(1, 3, 3, 2), draw()) == 1
    assert choose(row(1, 3, 3, 2), draw(logit_bias={0: 2.0})) == 0


def test_tokens_come_as_often_as_they_are_likely():
    probabilities = [0.5, 0.3, 0.15, 0.05]
    seen = frequencies(np.log(row(*probabilities)))
    assert [seen[token] for token in range(4)] == pytest.approx(probabilities, abs=0.03)


def test_temperature_flattens_and_sharpens():
    logits = np.log(row(0.8, 0.2))
    assert frequencies(logits, temperature=2.0)[0] == pytest.approx(2 / 3, abs=0.03)
    assert frequencies(logits, temperature=0.5)[0] == pytest.approx(16 / 17, abs=0.02)


def test_top_k_keeps_the_likeliest_tokens():
    seen = frequencies(np.log(row(0.1, 0.4, 0.2, 0.3)), top_k=2)
    assert seen == pytest.approx({1: 4 / 7, 3: 3 / 7}, abs=0.03)


def test_top_p_counts_all_that_top_k_leaves_however_unlikely():
    """Thirty-nine tokens that are hardly likely together weigh too much to be left out."""
    logits = np.log(np.array([1.0, *[0.0038] * 99])).astype(np.float32)
    sampling = Sampling(temperature=1.0, top_k=40, top_p=0.95)
    assert draw_from_row(logits, Draw(sampling, position=0), 0.99) > 1


def test_top_k_breaks_ties_by_id():
    assert set(frequencies(row(1, 1, 1, 1), top_k=2, draws=200)) == {0, 1}


def test_top_p_keeps_tokens_until_their_mass_reaches_it():
    logits = np.log(row(0.1, 0.4, 0.2, 0.3))
    assert set(frequencies(logits, top_p=0.6, draws=500)) == {1, 3}
    assert set(frequencies(logits, top_p=0.75, draws=500)) == {1, 3, 2}
    assert set(frequencies(logits, top_p=0.01, draws=100)) == {1}


def test_min_p_drops_tokens_much_less_likely_than_the_likeliest():
    assert set(frequencies(np.log(row(0.1, 0.5, 0.26, 0.14)), min_p=0.5, draws=500)) == {1, 2}
    assert set(frequencies(np.log(row(0.1, 0.5, 0.26, 0.14)), min_p=1.0, draws=100)) == {1}


@given(
    seed=st.integers(0, 2**32),
    size=st.sampled_from([2, 50, 3000]),
    spread=st.sampled_from([0.01, 1.0, 5.0]),
    temperature=st.sampled_from([0.1, 1.0, 10.0]),
    top_k=st.sampled_from([0, 1, 5, 200]),
    top_p=st.sampled_from([1.0, 0.99, 0.5]),
    min_p=st.sampled_from([0.0, 0.02, 0.5]),
)
def test_looking_at_few_tokens_first_gives_what_a_full_sort_gives(
    seed: int, size: int, spread: float, temperature: float, top_k: int, top_p: float, min_p: float
):
    logits = (np.random.default_rng(seed).standard_normal(size) * spread).round(2).astype(np.float32)
    sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)
    token = choose(logits, Draw(sampling, position=3))
    numbers = [uniform(seed, 3) + nudge for nudge in (0.0, -1e-9, 1e-9)]
    assert token in {sorted_inverse(logits, sampling, number) for number in numbers}


# --- Changing logits ----------------------------------------------------------------------------------------


def test_a_presence_penalty_is_subtracted_once():
    question = Draw(Sampling(presence_penalty=1.5), position=3, seen=Seen(output=[0, 2, 0]))
    assert adjusted(row(1, 1, 1), question) == [-0.5, 1, -0.5]


def test_a_frequency_penalty_is_subtracted_for_every_time():
    question = Draw(Sampling(frequency_penalty=0.5), position=3, seen=Seen(output=[0, 2, 0]))
    assert adjusted(row(1, 1, 1), question) == [0, 1, 0.5]


def test_a_repetition_penalty_weakens_tokens_of_prompt_and_output():
    question = Draw(Sampling(repetition_penalty=2.0), position=0, seen=Seen([0], [1]))
    assert adjusted(row(4, -4, 4), question) == [2, -8, 4]


SIZE = 24
some_tokens = st.lists(st.integers(0, SIZE - 1), max_size=30)


def plainly(raw: FloatArray, draw: Draw, prompt: list[int], output: list[int]) -> tuple[set[int], list[float]]:
    """What is touched, and the logits with it, without anything that is kept from token to token."""
    sampling, logits = draw.sampling, raw.astype(np.float64)
    counts = Counter(output)
    changed = {token for token in (*sampling.logit_bias, *draw.banned) if token < SIZE}
    if sampling.repetition_penalty != 1.0:
        changed |= {*prompt, *output}
        for token in {*prompt, *output}:
            by = sampling.repetition_penalty
            logits[token] = logits[token] / by if logits[token] > 0 else logits[token] * by
    if sampling.presence_penalty or sampling.frequency_penalty:
        changed |= set(output)
        for token, count in counts.items():
            logits[token] -= sampling.presence_penalty + sampling.frequency_penalty * count
    for token, bias in sampling.logit_bias.items():
        if token < SIZE:
            logits[token] += bias
    for token in draw.banned:
        logits[token] = -np.inf
    return changed, logits.tolist()


@given(
    prompt=some_tokens,
    output=some_tokens,
    penalties=st.tuples(st.sampled_from([0.0, 1.5]), st.sampled_from([0.0, -0.3]), st.sampled_from([1.0, 1.3, 0.7])),
    bias=st.dictionaries(st.integers(0, SIZE + 3), st.sampled_from([-1.0, 2.5]), max_size=3),
    banned=st.sampled_from([(), (3,), (0, 23)]),
    seed=st.integers(0, 1000),
)
def test_what_is_kept_from_token_to_token_changes_logits_as_what_is_found_anew(
    prompt: list[int],
    output: list[int],
    penalties: tuple[float, float, float],
    bias: dict[int, float],
    banned: tuple[int, ...],
    seed: int,
):
    raw = (np.random.default_rng(seed).standard_normal(SIZE) * 4).astype(np.float32)
    presence, frequency, repetition = penalties
    sampling = Sampling(
        presence_penalty=presence, frequency_penalty=frequency, repetition_penalty=repetition, logit_bias=bias
    )
    seen = Seen(prompt if repetition != 1.0 else ())
    for length in range(len(output) + 1):
        question = Draw(sampling, position=length, banned=banned, seen=seen)
        changed, expected = plainly(raw, question, prompt, output[:length])
        ids = touched(question, SIZE)
        assert ids.tolist() == sorted(changed)
        logits = raw.astype(np.float64)
        assert ban(adjust(logits.copy(), question), question).tolist() == expected
        logits[ids] = ban(adjust(logits[ids], question, ids), question, ids)
        assert logits.tolist() == expected
        if length < len(output) and (presence or frequency or repetition != 1.0):
            seen.add(output[length])


def test_a_bias_is_added_and_may_name_tokens_that_are_not_there():
    assert adjusted(row(0, 0), draw(logit_bias={1: 5.0, 999: 1.0})) == [0, 5]


def test_banned_tokens_do_not_come():
    assert choose(row(0, 9, 1), Draw(Sampling(), position=0, banned=(1,))) == 2


def test_only_what_a_grammar_allows_comes():
    allowed = np.array([True, False, True])
    assert choose(row(0, 9, 1), Draw(Sampling(), position=0, allowed=allowed)) == 2


def test_a_ban_gives_way_where_nothing_else_is_allowed():
    allowed = np.array([False, True, False])
    assert choose(row(0, 9, 1), Draw(Sampling(), position=0, banned=(1,), allowed=allowed)) == 1


# --- Log-probabilities --------------------------------------------------------------------------------------


def test_logprobs_are_the_models_own_whatever_sampling_did():
    logits = np.log(row(0.5, 0.3, 0.2))
    question = draw(temperature=5.0, logit_bias={2: 100.0}, logprobs=2)
    token, logprob = answer(logits, question)
    assert token == 2
    assert logprob is not None
    assert logprob.token == 2
    assert logprob.logprob == pytest.approx(math.log(0.2), abs=1e-6)
    assert [other for other, _ in logprob.top] == [0, 1]
    assert [value for _, value in logprob.top] == pytest.approx([math.log(0.5), math.log(0.3)], abs=1e-6)


def test_logprobs_without_rivals_are_the_chosen_tokens_alone():
    _, logprob = answer(row(0, 0), draw(logprobs=0))
    assert logprob is not None
    assert logprob.top == ()
    assert logprob.logprob == pytest.approx(math.log(0.5))


def test_tokens_are_reported_without_logprobs_unless_asked():
    assert answer(row(0, 1), draw()) == (1, None)
    assert sample(WholeLogits(np.zeros((0, 5), dtype=np.float32)), {}) == {}
