"""Prefix hashes: equal where prompts begin alike, before values are known and after."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.analysis.prefix import APART, SHORTEST, Prefix, prefix_of, prompt_chars, rekey
from parrotserve.graph.events import NewRequest, NewVariable
from parrotserve.graph.objects import Request, Session, Times, Variable
from parrotserve.graph.states import VariableState
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, Text
from parrotserve.transforms import Transform

LONG = "You are an expert. " * 20
STRIP, BLOCK = Transform("strip"), Transform("code_block")


def variable(name: str, value: str | None = None) -> Variable:
    made = Variable(declared=NewVariable(name), tenant="t")
    if value is not None:
        fill(made, value)
    return made


def fill(one: Variable, value: str) -> None:
    one.value, one.state = value, VariableState.READY


def request(*parts: object, model: str = "m", tenant: str = "t", published: int = 0) -> Request:
    """Texts are constant; a variable is an input, one in a list an output, one in a tuple has transforms."""
    segments, inputs, outputs = [], [], []
    for part in parts:
        match part:
            case str():
                segments.append(Text(part))
            case Text():
                segments.append(part)
            case [Variable() as made]:
                segments.append(Output(made.id, Sampling(seed=0)))
                outputs.append(made)
            case (Variable() as read, *transforms):
                segments.append(Input(read.id, tuple(transforms)))
                inputs.append(read)
            case Variable():
                segments.append(Input(part.id))
                inputs.append(part)
    spec = NewRequest(id="r", function="f", model=model, segments=tuple(segments), published=published)
    session = Session(id="s", tenant=tenant, lease_seconds=1.0, began=0.0)
    return Request(spec=spec, session=session, inputs=tuple(inputs), outputs=tuple(outputs), times=Times(submitted=0.0))


def expected(_: Variable) -> float:
    return 200.0


def chain(*parts: object, **fields: object) -> Prefix:
    return prefix_of(request(*parts, **fields), expected)  # type: ignore[arg-type]


def shared(one: Prefix, other: Prefix) -> float:
    """Characters up to the last boundary that both have."""
    found = {boundary.hash: boundary.chars for boundary in one.boundaries}
    return max((found[boundary.hash] for boundary in other.boundaries if boundary.hash in found), default=0)


def test_calls_of_one_function_share_its_constant_beginning():
    assert shared(chain(LONG, "a cat"), chain(LONG, "a dog")) == len(LONG)


def test_different_functions_with_a_common_beginning_share_it_though_it_ends_inside_a_text():
    one, other = LONG * 8 + "Write a poem of ", LONG * 8 + "Write tests for "
    assert len(LONG) * 4 <= shared(chain(one, "x"), chain(other, "x")) < len(LONG) * 8


def test_there_are_no_more_boundaries_than_about_one_for_a_token():
    values = [variable("empty", ""), variable("letter", "x")]
    found = chain(LONG, *values * 1000).boundaries
    assert len(found) <= 1 + 1000 / APART
    assert found[-1].chars > len(LONG) + 1000 - APART
    assert [one.segments for one in chain(LONG * 2, "").boundaries] == [0, 1]


def test_what_is_short_is_not_worth_finding():
    assert chain("Hi ", "there").boundaries == []


@pytest.mark.parametrize(("value", "times"), [("x" * (1 << 20), 1_000), ("x", 50_000)])
def test_a_chain_ends_where_no_model_reads_on(value: str, times: int):
    # A few words of a batch name a value once more, and its inner boundaries with it.
    document = variable("d", value)
    long = chain(LONG, *[document] * times, "one")
    assert 100 < len(long.boundaries) <= 10_100
    assert shared(long, chain(LONG, *[document] * times, "other")) > 5_000


def test_so_it_does_behind_values_that_are_empty():
    empty = variable("empty", "")
    assert chain(LONG, *[empty] * 20_000, LONG).boundaries[-1].chars == len(LONG)


def test_readers_of_one_future_value_share_it_before_it_exists_and_after():
    document = variable("d")
    one, other = (chain("Read: ", document, f" Now {what}", [variable(what)]) for what in ("sum", "ask"))
    before = shared(one, other)
    assert before == len("Read: ") + 200
    fill(document, LONG)
    for prefix in (one, other):
        assert rekey(prefix, expected)
        assert not rekey(prefix, expected)
    assert shared(one, other) == len("Read: ") + len(LONG)


def test_a_value_that_came_later_is_keyed_as_if_it_had_been_there():
    a, b = variable("a"), variable("b")
    early = chain(LONG, a, "and", b, "end")
    fill(b, "second")
    rekey(early, expected)
    fill(a, "first")
    rekey(early, expected)
    assert early.boundaries == chain(LONG, a, "and", b, "end").boundaries
    assert early.boundaries == chain(LONG, "first", "and", "second", "end").boundaries


def test_the_next_turn_of_a_conversation_shares_the_turn_that_is_being_written():
    answer, question = variable("a"), variable("q", "And why?")
    first = chain(LONG, "Q: ", variable("x", "What?"), "A: ", [answer])
    second = chain(LONG, "Q: ", variable("x", "What?"), "A: ", answer, "Q: ", question, "A: ", [variable("b")])
    assert shared(first, second) == len(LONG) + len("Q: What?A: ") + 200
    fill(answer, "Because.")
    rekey(first, expected)
    rekey(second, expected)
    assert shared(first, second) == len(LONG) + len("Q: What?A: Because.")


def test_a_plain_message_list_shares_what_a_conversation_of_variables_produced():
    said = variable("a", "Because.")
    turns = chain(LONG, Text("<user>", template=True), "What?", Text("<bot>", template=True), [said])
    messages = chain(LONG, Text("<user>", template=True), "What?", Text("<bot>", template=True), "Because.", "And?")
    assert shared(turns, messages) == len(LONG) + len("<user>What?<bot>Because.")


def test_a_chat_templates_text_is_not_the_same_as_a_users():
    assert shared(chain(Text(LONG, template=True)), chain(Text(LONG))) == 0


def test_transforms_make_a_difference():
    value = variable("v", LONG)
    assert shared(chain("a", (value, STRIP)), chain("a", value)) == 0
    assert shared(chain("a", (value, STRIP)), chain("a", (value, BLOCK))) == 0
    assert shared(chain("a", (value, STRIP)), chain("a", (variable("w", LONG), STRIP))) == 1 + len(LONG)
    future = variable("u")
    assert shared(chain("a", (future, STRIP)), chain("a", future)) == 0


def test_models_and_tenants_share_nothing():
    assert shared(chain(LONG), chain(LONG, model="other")) == 0
    assert shared(chain(LONG), chain(LONG, tenant="other")) == 0


def test_tenants_share_what_is_published_and_nothing_after():
    one, other = (chain(LONG, LONG, "x", tenant=tenant, published=1) for tenant in ("t", "other"))
    assert shared(one, other) == len(LONG)


@pytest.mark.parametrize("published", [0, 1])
def test_a_value_right_behind_what_is_shared_is_keyed_as_if_it_had_been_known(published: int):
    value = variable("v")
    parts = (LONG, value, "x")[1 - published :]
    early = chain(*parts, published=published)
    fill(value, LONG)
    rekey(early, expected)
    assert early.boundaries == chain(*parts, published=published).boundaries


def test_unknown_values_far_back_are_keyed_when_those_before_them_are_known():
    values = [variable(f"v{number}") for number in range(50)]
    prefix = chain(LONG, *values)
    assert len(prefix.unknown) < 10
    for one in reversed(values):
        fill(one, f"value of {one.id}")
        rekey(prefix, expected)
    assert prefix.boundaries == chain(LONG, *values).boundaries
    assert prefix.boundaries[-1].chars == len(LONG) + sum(len(one.value or "") for one in values)


def test_the_length_of_a_prompt_counts_all_but_outputs():
    one = request("abc", variable("v", "12345"), [variable("o", "long answer")], "d", variable("u"))
    assert prompt_chars(one, expected) == 3 + 5 + 1 + 200


TEXTS = st.sampled_from(["", "a", "b", "x" * SHORTEST, LONG, LONG * 3, LONG * 3 + "tail"])


@given(st.lists(TEXTS, max_size=5), st.lists(TEXTS, max_size=5))
def test_boundaries_are_equal_exactly_where_segments_are(one: list[str], other: list[str]):
    """Whole segments that are equal from the start are found, but for a token, and nothing that is not equal text."""
    common = 0
    for mine, its in zip(one, other, strict=False):
        if mine != its:
            break
        common += len(mine)
    found = int(shared(chain(*one), chain(*other)))
    assert found > common - APART or common < SHORTEST + APART
    assert "".join(one)[:found] == "".join(other)[:found]


@given(st.permutations(range(9)), st.integers(0, 9))
def test_the_order_in_which_values_come_makes_no_difference(order: list[int], later: int):
    values = [variable(f"v{number}") for number in range(9)]
    early = chain(LONG, *values)
    for number in order[:later]:
        fill(values[number], f"value {number}")
        rekey(early, expected)
    fresh = chain(LONG, *values)
    assert early.boundaries == fresh.boundaries
    assert [place.segment for place in early.unknown] == [place.segment for place in fresh.unknown]
