"""Responses: what bodies become as chats, and what answers become as responses, whole and in pieces."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.errors import ContextExceeded, DeclarationError, EngineFailed, ServiceUnavailable
from parrotserve.ids import SessionId, TenantId, VariableId
from parrotserve.protocol import Delta, Submit, Value
from parrotserve.sampling import FinishReason, Usage
from parrotserve.server.openai.answers import as_json
from parrotserve.server.openai.responses.answers import ResponseAnswer, ResponseEvent
from parrotserve.server.openai.responses.chats import chat_of
from parrotserve.server.openai.responses.items import messages_of
from parrotserve.server.openai.responses.kept import KeptResponses, Record
from parrotserve.server.openai.responses.listing import page_of, told_item
from parrotserve.server.openai.responses.wire import Item, ResponsesRequest
from parrotserve.server.openai.responses.writing import ResponseWriter
from parrotserve.server.openai.submissions import Asked, Origin, Submission
from parrotserve.server.openai.tools import AnswerForm, Tools
from parrotserve.server.openai.wire import FunctionSpec
from parrotserve.tenancy.limits import Limits

CALL = '{"name": "look", "arguments": {"at": "x"}}'
PIECES = ("<tool_call>", "</tool_call>", "\n", "a", "<", f"<tool_call>{CALL}</tool_call>", "Well. ")
TENANT = TenantId("ann")


def request(**body: Any) -> ResponsesRequest:
    return ResponsesRequest.model_validate({"input": "Hi"} | body)


def item(**fields: Any) -> Item:
    return Item.model_validate(fields)


def called(identity: str) -> Item:
    return item(type="function_call", call_id=identity, name="look", arguments="{}")


# --- What comes in ------------------------------------------------------------------------------------------


def test_calls_belong_to_what_was_said_before_them():
    said = [
        item(role="user", content="Hi"),
        called("a"),
        item(type="reasoning", id="r", summary=[]),
        called("b"),
        item(type="function_call_output", call_id="a", output="1"),
        item(role="assistant", content="Well."),
        called("c"),
        called("d"),
    ]
    messages, places = messages_of((str(number), one) for number, one in enumerate(said))
    told = [(one.role, one.content, [call.id for call in one.tool_calls or []]) for one in messages]
    assert told == [
        ("user", "Hi", []),
        ("assistant", None, ["a", "b"]),
        ("tool", "1", []),
        ("assistant", "Well.", ["c", "d"]),
    ]
    assert places == ["0", "1", "4", "5"]


def test_a_chat_has_what_the_request_says():
    function = {"type": "function", "name": "look", "parameters": {"type": "object"}, "strict": False}
    chat, places = chat_of(
        request(
            instructions="Be kind.",
            tools=[function],
            tool_choice={"type": "function", "name": "look"},
            text={"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}}},
            max_output_tokens=7,
            temperature=0.5,
            top_p=0.25,
            include=["message.output_text.logprobs"],
            top_logprobs=3,
            parallel_tool_calls=False,
            stop=["x"],
            seed=5,
        ),
        [item(role="user", content="Before"), item(role="assistant", content="Yes.")],
    )
    assert as_json(chat) == {
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Before"},
            {"role": "assistant", "content": "Yes."},
            {"role": "user", "content": "Hi"},
        ],
        "tools": [{"type": "function", "function": {
            "name": "look", "description": None, "parameters": {"type": "object"}, "strict": False}}],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "response_format": {"type": "json_schema", "json_schema": {"schema_": {"type": "object"}}},
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.25,
        "logprobs": True,
        "top_logprobs": 3,
        "parallel_tool_calls": False,
        "chat_template_kwargs": None,
        "stop": ["x"],
        "seed": 5,
    }  # fmt: skip
    assert places.messages == ["instructions", "previous_response_id", "previous_response_id", "input"]


@pytest.mark.parametrize(
    ("wrong", "place"),
    [
        ({"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_image"}]}, "7.content.1"),
        ({"type": "function_call", "call_id": "a", "name": "b", "arguments": "5"}, "7.arguments"),
        ({"type": "custom_tool_call"}, "7.type"),
    ],
)
def test_what_is_wrong_with_an_item_names_its_place(wrong: dict[str, Any], place: str):
    with pytest.raises(DeclarationError) as refused:
        messages_of([("7", item(**wrong))])
    assert refused.value.details["param"] == place
    assert refused.value.message.startswith(f"body.{place}: ")


def test_a_record_comes_back_as_it_was():
    body = request(input=[{"role": "user", "content": "\ud800"}], tools=[{"type": "function", "name": "f"}], store=True)
    record = Record(body=body, earlier=[item(role="user", content="Hi")])
    assert Record.from_json(record.to_json()) == record
    assert [one.content for one in record.items] == ["Hi", "\ud800"]


# --- What goes out ------------------------------------------------------------------------------------------


def writer(tools: Tools | None = None, completed: Callable[[], None] | None = None) -> ResponseWriter:
    origin = Origin("c-1", SessionId("c-1"), keeps_session=True, repeatable=False, kept=True)
    asked = cast("Asked", SimpleNamespace(model=SimpleNamespace(name="fake"), tokenizer=None))
    submission = Submission(
        asked=asked,
        origin=origin,
        submit=Submit(session=origin.session),
        variables=(VariableId("v"),),
        requests=(),
        tools=tools,
    )
    return ResponseWriter(submission, request(), created=5, completed=completed)


def tools(*, tagged: bool) -> Tools:
    return Tools(
        functions=(FunctionSpec(name="look"),), tagged=tagged, arguments_key="arguments", form=AnswerForm.TEXT_AND_CALLS
    )


def value(text: str, reason: FinishReason = FinishReason.STOP) -> Value:
    return Value(variable=VariableId("v"), value=text, reason=reason)


def events(text: str, made: ResponseWriter, *, step: int = 1) -> list[ResponseEvent]:
    told = made.begin(0)
    for start in range(0, len(text), step):
        told += made.grow(0, Delta(variable=VariableId("v"), offset=start, text=text[start : start + step]))
    told += made.finish(0, value(text))
    told += made.total([Usage()])
    return cast("list[ResponseEvent]", told)


@given(
    st.lists(st.sampled_from(PIECES), max_size=5).map("".join), st.sampled_from([None, True, False]), st.integers(1, 9)
)
def test_the_pieces_make_up_the_whole(text: str, tagged: bool | None, step: int):
    offered = None if tagged is None else tools(tagged=tagged)
    told = events(text, writer(offered), step=step)
    whole = writer(offered).whole([value(text)], [Usage()])
    assert told[-1].response == whole
    assert [event.sequence_number for event in told] == list(range(len(told)))
    items: dict[int, dict[str, Any]] = {}
    for event in told[2:-1]:
        index, kind = event.output_index, event.type.removeprefix("response.")
        assert index is not None
        if kind == "output_item.added":
            assert index == len(items)
            assert event.item is not None
            items[index] = {"type": event.item.type, "text": ""}
        elif kind.endswith(".delta"):
            items[index]["text"] += event.delta or ""
        elif kind == "output_text.done":
            assert event.text == items[index]["text"]
        elif kind == "function_call_arguments.done":
            assert event.arguments == items[index]["text"]
        elif kind == "output_item.done":
            assert event.item == whole.output[index]
    assert len(items) == len(whole.output) > 0


def test_a_response_is_complete_once():
    done: list[int] = []
    events("Well.", writer(completed=lambda: done.append(1)))
    assert done == [1]
    made = writer(completed=lambda: done.append(2))
    made.whole((), ())
    assert done == [1], "it is only begun"
    made.whole([value("Well.")], [Usage()])
    assert done == [1, 2]


def test_an_answer_without_text_and_calls_is_an_empty_message():
    whole = writer().whole([value("", FinishReason.LENGTH)], [Usage()])
    assert as_json(whole)["output"][0]["content"] == [
        {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    ]
    assert whole.status == "incomplete"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (EngineFailed("It died."), "response.failed", "server_error"),
        (ContextExceeded("Too long."), "response.failed", "invalid_prompt"),
        (ServiceUnavailable("Shutting down."), "error", "service_unavailable"),
        (KeyError("a secret"), "error", "internal_error"),
    ],
)
def test_how_a_stream_fails(error: Exception, kind: str, code: str):
    (event,) = cast("list[ResponseEvent]", writer().fail(error))
    assert event.type == event.event_name == kind
    failed = event.response.error if isinstance(event.response, ResponseAnswer) else event
    assert failed is not None
    assert failed.code == code
    assert "secret" not in (failed.message or "")


# --- What is kept -------------------------------------------------------------------------------------------


class Ended:
    """Stands for a service: remembers which sessions it was to end."""

    def __init__(self, limits: Limits, each: int) -> None:
        self.directory = SimpleNamespace(limits=lambda tenant: limits)
        self.sessions: list[str] = []
        self._each = each
        self.began = 0

    def end_session(self, session: str, *, tenant: TenantId) -> None:
        self.sessions.append(session)

    def held(self, tenant: TenantId) -> int:
        return self._each * (self.began - len(self.sessions))


@pytest.mark.parametrize(
    ("limits", "size", "stay"),
    [(Limits(sessions=6), 10, 3), (Limits(held_bytes=8000), 10, 4), (Limits(), 8_000_000, 2), (Limits(), 10, 5)],
)
def test_responses_that_were_not_used_for_longest_make_room(limits: Limits, size: int, stay: int):
    kept, service = KeptResponses(), Ended(limits, 1000)
    for number in range(5):
        service.began += 1
        kept.keep(cast("Any", service), SessionId(str(number)), size, TENANT)
    assert service.sessions == [str(number) for number in range(5 - stay)]


def test_a_page_ends_where_the_next_one_begins():
    items = [told_item(item(role="user", content=str(number)), "c-1", number) for number in range(3)]
    first = page_of(items, after=None, most=2)
    assert (len(first.data), first.has_more) == (2, True)
    second = page_of(items, after=first.last_id, most=2)
    assert ([one["id"] for one in second.data], second.has_more) == (["msg_c-1.2"], False)
    assert page_of([], after=None, most=2).last_id is None
    with pytest.raises(DeclarationError, match="no item"):
        page_of(items, after="msg_c-1.9", most=2)
