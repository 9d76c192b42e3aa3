"""What the OpenAI-compatible API reads from texts: placeholders in prompts, calls in answers."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.errors import DeclarationError, InvalidTransform
from parrotserve.protocol import InputSegment, TextSegment, WireTransform
from parrotserve.server.openai.extension import ByValue, Inputs
from parrotserve.server.openai.reading import Reading
from parrotserve.server.openai.tools import AnswerForm, Tools
from parrotserve.server.openai.wire import FunctionSpec

CALL = '{"name": "look", "arguments": {"at": "x"}}'
FUNCTIONS = (FunctionSpec(name="look"),)
PIECES = (
    "<tool_call>",
    "</tool_call>",
    "\n",
    " ",
    "a",
    "<",
    "{",
    "[",
    "]",
    CALL,
    f"[{CALL}]",
    f"<tool_call>{CALL}</tool_call>",
)
WRITTEN = {
    "plain": "{{input:a}}",
    "spaced": "{{ input : a }}",
    "piped": "{{input:a | strip | lines(1, 2)}}",
    "quoted": '{{input:a | json("b}}|c")}}',
}


def tools(*, tagged: bool, must_call: bool = False) -> Tools:
    form = AnswerForm.CALLS if must_call else AnswerForm.TEXT_AND_CALLS
    return Tools(functions=FUNCTIONS, tagged=tagged, arguments_key="arguments", form=form)


@given(st.lists(st.sampled_from(PIECES), max_size=6).map("".join), st.booleans(), st.booleans())
def test_what_is_shown_of_an_unfinished_answer_is_never_taken_back(text: str, tagged: bool, must_call: bool):
    reader = tools(tagged=tagged, must_call=must_call)
    content, calls = reader.read(text)
    reading, shown = Reading(reader), ""
    for character in text:
        shown += reading.grow(character)
        assert (content or "").startswith(shown)
    rest, found = reading.finish(text)
    assert (shown + rest, found) == (content or "", calls)


@pytest.mark.parametrize(
    ("text", "tagged", "content", "calls"),
    [
        (f"<tool_call>\n{CALL}\n</tool_call>", True, None, 1),
        (f"Wait.\n<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}", True, "Wait.", 2),
        (f"<tool_call>{CALL}</tool_call><tool_call>oops</tool_call>", True, None, 0),
        (CALL, True, None, 0),
        (f" {CALL}\n", False, None, 1),
        (f"[TOOL_CALLS] [{CALL}, {CALL}]", False, None, 2),
        ('{"name": "look", "parameters": {}}', False, None, 1),
        ('{"name": "leap", "arguments": {}}', False, None, 0),
        ('{"name": ["look"]}', False, None, 0),
        ("[]", False, None, 0),
        ("[" * 5000, False, None, 0),
        (f"See: {CALL}", False, None, 0),
    ],
    ids=range(12),
)
def test_calls_are_told_from_what_only_looks_like_them(text: str, tagged: bool, content: str | None, calls: int):
    read, found = tools(tagged=tagged).read(text)
    assert read == (content if calls else text)
    assert len(found) == calls
    assert all(call.name == "look" and json.loads(call.arguments) in ({"at": "x"}, {}) for call in found)


@given(
    st.lists(st.sampled_from(["{{input:a}}", "{{input:b}}", "{{", "}}", "|", "'", "text", "\n"]), max_size=8).map(
        "".join
    )
)
def test_nothing_is_lost_between_placeholders(text: str):
    inputs = Inputs("s", "c-1", {"a": "first"})
    segments = list(inputs.split(text))
    back = "".join(each.text if isinstance(each, TextSegment) else "{{input:a}}" for each in segments)
    assert back == text
    assert text.count("{{input:a}}") == sum(isinstance(each, InputSegment) for each in segments)


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_placeholders_may_be_written_so(written: str):
    before, found, after = Inputs("s", "c-1", {"a": "first"}).split(f"<{written}>")
    assert isinstance(found, InputSegment)
    assert (before, found.variable, after) == (TextSegment(text="<"), "s:first", TextSegment(text=">"))


@pytest.mark.parametrize(
    "unfinished",
    ["{{input:a|", '{{input:a|\\"', "{{input:a|\\'", "{{input:a ", "{{input", "{{ ", '{{input:a|"\\"'],
    ids=range(7),
)
def test_unfinished_placeholders_take_no_longer_each_the_more_there_are(unfinished: str):
    text = "{{input:a}}" + unfinished * 20_000
    started = time.process_time()
    found = list(Inputs("s", "c-1", {"a": "first"}).split(text))
    assert time.process_time() - started < 2  # looking from each of them up to the end of the text takes minutes
    assert found == [InputSegment(variable="s:first"), TextSegment(text=unfinished * 20_000)]


def test_a_placeholder_behind_an_unfinished_one_is_found():
    before, found = Inputs("s", "c-1", {"a": "first"}).split("{{input:a|'{{input:a}}")
    assert (before, found) == (TextSegment(text="{{input:a|'"), InputSegment(variable="s:first"))


def test_a_quote_that_is_never_closed_is_refused_at_once():
    written = "{{input:a | json(x'" + '\\"' * 40_000 + "')}}"
    started = time.process_time()
    with pytest.raises(InvalidTransform, match="literal"):
        list(Inputs("s", "c-1", {"a": "first"}).split(written))
    assert time.process_time() - started < 2


def test_white_space_within_a_call_takes_no_longer_the_more_there_is():
    written = f"<tool_call>{' ' * 100_000}x"
    started = time.process_time()
    assert tools(tagged=True).read(written) == (written, [])
    assert time.process_time() - started < 2


def test_transforms_are_read_from_left_to_right():
    (found,) = Inputs("s", "c-1", {"a": "first"}).split(WRITTEN["piped"])
    assert isinstance(found, InputSegment)
    assert found.transforms == (WireTransform(name="strip"), WireTransform(name="lines", args=(1, 2)))


def test_what_is_no_transform_is_refused():
    with pytest.raises(InvalidTransform, match="shout"):
        list(Inputs("s", "c-1", {"a": "first"}).split("{{input:a | shout}}"))


def test_a_text_that_is_used_twice_is_declared_once():
    inputs = Inputs("s", "c-1", {"a": ByValue(value="x")})
    segments = [*inputs.split("{{input:a}}{{input:a}}")]
    assert [each.variable for each in segments if isinstance(each, InputSegment)] == ["c-1.0.in"] * 2
    assert [(each.id, each.value) for each in inputs.variables] == [("c-1.0.in", "x")]


def test_an_input_that_stands_nowhere_is_refused():
    inputs = Inputs("s", "c-1", {"a": "first", "b": "second"})
    list(inputs.split("{{input:a}}"))
    with pytest.raises(DeclarationError, match="No message or prompt uses the input 'b'"):
        inputs.check_used()
