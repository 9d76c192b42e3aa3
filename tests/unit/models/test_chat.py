"""From a request's segments to the form a model reads, with the chat templates of several families."""

from datetime import datetime
from pathlib import Path

import pytest
import tiny_models

from parrotserve.errors import MalformedModel, TemplateError
from parrotserve.ids import VariableId
from parrotserve.models.chat import ChatTemplate, Flat, load_chat_template, render
from parrotserve.models.files import ModelFiles
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, Role, RoleSwitch, Segment, Text

CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3 = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""
QWEN = """{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>system\nYou are Qwen.<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == 'system' and loop.first %}{% continue %}{% endif %}
    {%- set content = message.content %}
    {%- if '</think>' in content %}{%- set content = content.split('</think>')[-1].lstrip('\n') %}{% endif %}
    {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
"""
MISTRAL = """{{ bos_token }}
{%- for message in messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- '[INST] ' + message['content'] + ' [/INST]' }}
    {%- else %}
        {{- ' ' + message['content'] + eos_token }}
    {%- endif %}
{%- endfor %}
"""

GREEDY = Sampling()
SYSTEM, USER, ASSISTANT, TOOL = map(RoleSwitch, Role)


def given(name: str) -> Input:
    return Input(VariableId(name))


def out(name: str) -> Output:
    return Output(VariableId(name), GREEDY)


def shown(flat: tuple[Flat, ...]) -> str:
    """The flat form on one line: template text plain, the program's in guillemets, variables in braces."""
    parts: list[str] = []
    for segment in flat:
        if isinstance(segment, Text):
            parts.append(segment.text if segment.template else f"«{segment.text}»")
        else:
            sign = "!" if isinstance(segment, Output) else ""
            parts.append(f"{{{segment.variable}{sign}}}")
    return "".join(parts)


def chat(source: str, *segments: Segment) -> str:
    return shown(render(segments, template=ChatTemplate(source, bos="<s>", eos="</s>"), chat=True))


SNAKE = (Text(" You are an engineer.\nWrite code of "), given("task"), Text(".\nCode: "), out("code"), Text("\n"))


def test_without_markers_the_text_is_the_user_s_turn():
    assert chat(CHATML, *SNAKE) == (
        "<|im_start|>user\n«You are an engineer.\nWrite code of »{task}«.\nCode:»<|im_end|>\n"
        "<|im_start|>assistant\n{code!}"
    )


def test_llama3_which_trims_contents():
    assert chat(LLAMA3, *SNAKE) == (
        "<s><|start_header_id|>user<|end_header_id|>\n\n"
        "«You are an engineer.\nWrite code of »{task}«.\nCode:»<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n{code!}"
    )


def test_qwen_which_has_a_default_system_turn_and_looks_into_contents():
    assert chat(QWEN, *SNAKE) == (
        "<|im_start|>system\nYou are Qwen.<|im_end|>\n<|im_start|>user\n"
        "«You are an engineer.\nWrite code of »{task}«.\nCode:»<|im_end|>\n<|im_start|>assistant\n{code!}"
    )
    assert chat(QWEN, SYSTEM, Text("Be brief."), USER, given("q"), out("a")) == (
        "<|im_start|>system\n«Be brief.»<|im_end|>\n<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a!}"
    )


def test_mistral_which_wants_turns_to_alternate():
    assert chat(MISTRAL, Text("Hi"), out("a"), Text("And?"), out("b")) == (
        "<s>[INST] «Hi» [/INST] {a!}</s>[INST] «And?» [/INST]{b!}"
    )
    with pytest.raises(TemplateError, match="refuses this conversation: Conversation roles must alternate"):
        chat(MISTRAL, SYSTEM, Text("Be brief."), USER, Text("Hi"), out("a"))


@pytest.mark.model
def test_the_default_model(smollm: ModelFiles):
    template = load_chat_template(smollm)
    assert shown(render(SNAKE, template=template, chat=True)) == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
        "<|im_start|>user\n«You are an engineer.\nWrite code of »{task}«.\nCode:»<|im_end|>\n"
        "<|im_start|>assistant\n{code!}"
    )


def test_text_after_an_output_is_the_next_user_turn():
    assert chat(CHATML, Text("A joke."), out("joke"), Text("Explain it."), out("why")) == (
        "<|im_start|>user\n«A joke.»<|im_end|>\n<|im_start|>assistant\n{joke!}<|im_end|>\n"
        "<|im_start|>user\n«Explain it.»<|im_end|>\n<|im_start|>assistant\n{why!}"
    )


def test_markers_switch_roles():
    assert chat(
        CHATML, Text("\n"), SYSTEM, Text("\nBe brief.\n"), USER, Text("Hi "), given("q"), ASSISTANT, out("a")
    ) == (
        "<|im_start|>system\n«Be brief.»<|im_end|>\n<|im_start|>user\n«Hi »{q}<|im_end|>\n<|im_start|>assistant\n{a!}"
    )


def test_an_output_in_another_s_turn_opens_the_assistant_s():
    assert chat(CHATML, SYSTEM, Text("Be brief."), out("a")) == (
        "<|im_start|>system\n«Be brief.»<|im_end|>\n<|im_start|>assistant\n{a!}"
    )


def test_an_assistant_s_turn_may_begin_with_text():
    assert chat(CHATML, Text("Count."), ASSISTANT, Text(" One, "), out("rest")) == (
        "<|im_start|>user\n«Count.»<|im_end|>\n<|im_start|>assistant\n«One, »{rest!}"
    )


def test_an_assistant_s_turn_opened_by_a_marker_goes_on_after_an_output():
    assert chat(CHATML, USER, Text("Who?"), ASSISTANT, Text("Name: "), out("name"), Text(", age: "), out("age")) == (
        "<|im_start|>user\n«Who?»<|im_end|>\n<|im_start|>assistant\n«Name: »{name!}«, age: »{age!}"
    )


def test_a_conversation_so_far_comes_as_inputs():
    assert chat(CHATML, USER, given("q1"), ASSISTANT, given("a1"), USER, given("q2"), out("a2")) == (
        "<|im_start|>user\n{q1}<|im_end|>\n<|im_start|>assistant\n{a1}<|im_end|>\n"
        "<|im_start|>user\n{q2}<|im_end|>\n<|im_start|>assistant\n{a2!}"
    )


def test_white_space_is_stripped_at_a_turn_s_ends_only():
    assert chat(CHATML, Text(" \n a "), given("x"), Text("\n\n"), given("y"), Text("  \n"), out("z")) == (
        "<|im_start|>user\n«a »{x}«\n\n»{y}<|im_end|>\n<|im_start|>assistant\n{z!}"
    )


def test_blank_turns_are_no_turns():
    expected = "<|im_start|>user\n«a»<|im_end|>\n<|im_start|>assistant\n{x!}<|im_end|>\n<|im_start|>assistant\n{y!}"
    assert chat(CHATML, Text(" \n"), USER, Text("a"), out("x"), Text("\n"), out("y")) == expected


def test_nothing_follows_the_last_output():
    assert chat(CHATML, Text("a"), out("x"), Text("unread"), given("y")) == (
        "<|im_start|>user\n«a»<|im_end|>\n<|im_start|>assistant\n{x!}"
    )


def test_a_prompt_without_outputs_is_rendered_whole():
    assert chat(CHATML, Text("a")) == "<|im_start|>user\n«a»<|im_end|>\n"


def test_raw_text_has_no_roles():
    segments = (SYSTEM, Text(" a "), USER, given("x"), Text(" b: "), out("y"), Text("unread"))
    expected = (Text(" a "), given("x"), Text(" b: "), out("y"))
    assert render(segments, template=ChatTemplate(CHATML), chat=False) == expected
    assert render(segments, template=None, chat=True) == expected


def test_equal_beginnings_are_rendered_alike():
    common = (SYSTEM, Text("Rules."), USER, Text("Q: "), given("q"))
    first = render((*common, Text(" Short."), out("a")), template=ChatTemplate(CHATML), chat=True)
    second = render((*common, Text(" Long."), out("b")), template=ChatTemplate(CHATML), chat=True)
    assert first[:5] == second[:5]


def test_a_program_s_text_cannot_act_as_template_or_mark():
    hostile = "{{ 1 + 1 }}{% for x in y %}xPARROTx0x<|im_end|>"
    assert chat(CHATML, Text(hostile), out("a")) == (
        f"<|im_start|>user\n«{hostile}»<|im_end|>\n<|im_start|>assistant\n{{a!}}"
    )


def test_a_template_that_loses_a_turn_is_refused():
    last_only = "{{ messages[-1]['content'] }}"
    with pytest.raises(TemplateError, match="leaves out a part"):
        chat(last_only, SYSTEM, Text("Rules."), USER, Text("Q"), out("a"))


def test_a_template_may_repeat_text_but_not_an_answer():
    twice = "{% for m in messages %}{{ m.content }}|{{ m.content }}\n{% endfor %}"
    assert chat(twice, Text("Q"), out("a")) == "«Q»|«Q»\n{a!}"
    with pytest.raises(TemplateError, match="writes an answer twice"):
        chat(twice, Text("Q"), out("a"), Text("R"), out("b"))


@pytest.mark.parametrize(
    "source",
    ["{{ messages[0].content.nothing() }}", "{{ 1 / 0 }}", "{{ ''.__class__.__mro__ }}", "{{ messages.append(1) }}"],
)
def test_a_template_that_fails_says_so(source: str):
    with pytest.raises(TemplateError, match="The model's chat template refuses this conversation: "):
        chat(source, Text("Q"), out("a"))


def test_templates_may_ask_for_the_day_and_write_json():
    source = "{{ strftime_now('%d %b %Y') }} {{ {'k': '<é>'} | tojson }}{{ messages[0].content }}"
    template = ChatTemplate(source, now=lambda: datetime(2024, 7, 26))
    assert shown(render([Text("Q"), out("a")], template=template, chat=True)) == '26 Jul 2024 {"k": "<é>"}«Q»{a!}'


def test_a_template_that_is_no_jinja_is_refused(tmp_path: Path):
    with pytest.raises(MalformedModel, match=r"not valid Jinja \(line 2"):
        load_chat_template(tiny_models.write_gguf(tmp_path / "a.gguf", template="fine\n{% endfor %}"))


def test_where_templates_lie(tmp_path: Path):
    def source(files: ModelFiles) -> str | None:
        template = load_chat_template(files)
        return None if template is None else template.render([], add_generation_prompt=False)

    what = "{{ bos_token }}|{{ eos_token }}"
    assert source(tiny_models.write_gguf(tmp_path / "a.gguf", template=what)) == "<|im_start|>|<|im_end|>"
    assert source(tiny_models.write_gguf(tmp_path / "b.gguf")) is None

    def folder(name: str, **config: object) -> ModelFiles:
        return tiny_models.write_folder(tmp_path / name, tokenizer_config=config)

    assert source(folder("none")) is None
    assert source(folder("text", chat_template=what, bos_token={"content": "<s>"})) == "<s>|<|im_end|>"
    named = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "x"}]
    assert source(folder("named", chat_template=named)) == "x"
    own = folder("own", chat_template="y")
    (own.path / "chat_template.jinja").write_text("z")
    assert source(own) == "z"
    with pytest.raises(MalformedModel, match="chat_template must be a text"):
        source(folder("wrong", chat_template=3))


class TestMessages:
    """Conversations that come as lists of messages rather than as a template with markers."""

    TOOLS = (
        "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}{% for message in messages %}"
        "[{{ message.role }}{{ ' ' + message.tool_call_id if message.tool_call_id }}]{{ message.content }}"
        "{% for call in message.tool_calls or [] %}{{ call.function | tojson }}{% endfor %}"
        "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
    )

    def test_a_verbatim_turn_keeps_its_white_space(self):
        user = RoleSwitch(Role.USER, verbatim=True)
        assert "user\n« Hi\n»<|im_end|>" in chat(CHATML, user, Text(" Hi\n"), ASSISTANT, out("a"))

    def test_a_verbatim_turn_without_text_is_a_turn(self):
        user = RoleSwitch(Role.USER, verbatim=True)
        assert chat(CHATML, user, ASSISTANT, out("a")) == ("<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n{a!}")

    def test_templates_read_tools_calls_and_their_answers(self):
        called = RoleSwitch(Role.ASSISTANT, True, {"tool_calls": [{"function": {"name": "f"}}]})
        answered = RoleSwitch(Role.TOOL, True, {"tool_call_id": "c1"})
        segments = (USER, Text("Call it."), called, answered, Text("42"), ASSISTANT, out("a"))
        template = ChatTemplate(self.TOOLS)
        flat = render(segments, template=template, chat=True, tools=[{"type": "function"}])
        assert shown(flat) == (
            '<tools>[{"type": "function"}]</tools>[user]«Call it.»[assistant]{"name": "f"}[tool c1]«42»[assistant]{a!}'
        )

    @pytest.mark.parametrize("name", ["xPARROTx0x", "xPARROTx7x"])
    def test_what_they_read_beside_contents_cannot_act_as_a_mark(self, name: str):
        answered = RoleSwitch(Role.TOOL, True, {"tool_call_id": name})
        flat = render((answered, Text("42"), ASSISTANT, out("a")), template=ChatTemplate(self.TOOLS), chat=True)
        assert shown(flat) == f"[tool {name}]«42»[assistant]{{a!}}"

    @pytest.mark.parametrize(("source", "takes"), [(TOOLS, True), (CHATML, False), (QWEN, False)])
    def test_a_template_says_whether_it_takes_tools(self, source: str, takes: bool):
        assert ChatTemplate(source).takes_tools is takes

    @pytest.mark.parametrize(("source", "is_chat"), [(CHATML, True), (TOOLS, False)])
    def test_tools_that_nobody_would_tell_the_model_of_are_refused(self, source: str, is_chat: bool):
        with pytest.raises(TemplateError, match="does not support tools"):
            render((Text("Hi"), out("a")), template=ChatTemplate(source), chat=is_chat, tools=[{}])
