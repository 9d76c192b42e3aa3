"""Variables of chat templates that a program sets: what they change, and which ones there are."""

from typing import Any

import pytest

from parrotserve.analysis.prefix import Prefix, prefix_of
from parrotserve.errors import TemplateError
from parrotserve.graph.events import NewRequest, NewVariable
from parrotserve.graph.objects import Request, Session, Times, Variable
from parrotserve.ids import RequestId, SessionId, TenantId, VariableId
from parrotserve.models.chat import ChatTemplate, Flat, render
from parrotserve.runtime.render import published_pieces
from parrotserve.sampling import Sampling
from parrotserve.segments import Input, Output, Role, RoleSwitch, Segment, Text

QWEN3 = """{%- for message in messages %}
    {%- if message.role == 'assistant' and '</think>' in message.content %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
    {%- else %}
        {%- set content = message.content %}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}
"""
NO_THOUGHT = "<think>\n\n</think>\n\n"
LATE = Variable(declared=NewVariable(VariableId("q"), None, None), tenant=TenantId("t"))
ANSWER = Variable(declared=NewVariable(VariableId("a"), None, None), tenant=TenantId("t"))
ASKED = (Text("Parrots? " * 40), Input(LATE.id), Output(ANSWER.id, Sampling(seed=0)))


def flat(source: str, *segments: Segment, **kwargs: Any) -> tuple[Flat, ...]:
    return render(segments or ASKED, template=ChatTemplate(source), chat=True, chat_template_kwargs=kwargs)


def written(source: str, *segments: Segment, **kwargs: Any) -> str:
    """What the template wrote itself."""
    told = flat(source, *segments, **kwargs)
    return "".join(part.text for part in told if isinstance(part, Text) and part.template)


def test_thinking_is_switched_off():
    assert written(QWEN3, enable_thinking=False).endswith(f"<|im_start|>assistant\n{NO_THOUGHT}")
    assert flat(QWEN3, enable_thinking=True) == flat(QWEN3)
    assert "<think>" not in written(QWEN3, enable_thinking=True)


TWICE = (Text("One."), Output(VariableId("x"), Sampling()), Text("Two."), ASKED[-1])


def test_every_answer_of_a_request_is_opened_as_the_last_one_is():
    asked, told = "<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n", "<|im_end|>\n"
    assert written(QWEN3, *TWICE) == asked + told + asked
    assert written(QWEN3, *TWICE, enable_thinking=False) == (asked + NO_THOUGHT) + told + (asked + NO_THOUGHT)


def test_an_answer_that_was_begun_is_opened_before_its_beginning():
    begun = (Text("One."), RoleSwitch(Role.ASSISTANT), Text("It is "), TWICE[1], RoleSwitch(Role.USER), *TWICE[2:])
    told = flat(QWEN3, *begun, enable_thinking=False)
    assert [part.text for part in told[2:4] if isinstance(part, Text)] == [
        f"<|im_end|>\n<|im_start|>assistant\n{NO_THOUGHT}",
        "It is ",
    ]


def test_answers_that_were_given_are_told_as_the_template_tells_them():
    given = (RoleSwitch(Role.USER), Text("One."), RoleSwitch(Role.ASSISTANT), Text("1"), RoleSwitch(Role.USER))
    assert written(QWEN3, *given, *ASKED, enable_thinking=False).count(NO_THOUGHT) == 1


@pytest.mark.parametrize(
    "end", ["{{ '<x>' if x }}", "{{ '<x>' if add_generation_prompt else '<end>' }}{{ x if not x }}"]
)
def test_a_template_that_opens_no_answers_tells_all_alike(end: str):
    source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}" + end
    assert written(source, *TWICE, x=True) == "[user][assistant][user]<x>"


def test_values_are_json_of_any_kind():
    source = "{{ names | tojson }}{{ 1 if no is none else 2 }}{{ n + 1 }}{{ messages[0].content }}"
    assert written(source, names=[{"a": None}], no=None, n=2) == '[{"a": null}]13'


def test_a_program_s_values_cannot_act_as_mark():
    assert written("{{ date }}{{ messages[0].content }}", date="xPARROTx0x") == "xPARROTx0x"


@pytest.mark.parametrize(
    "name", ["messages", "tools", "add_generation_prompt", "bos_token", "eos_token", "raise_exception", "namespace"]
)
def test_what_the_service_sets_is_not_the_program_s_to_set(name: str):
    source = "{{ " + name + " }}{{ messages[0].content }}"
    with pytest.raises(TemplateError, match=f"chat_template_kwargs has {name!r}, which the service sets") as refused:
        flat(source, **{name: False})
    assert refused.value.details == {"param": "chat_template_kwargs"}


def test_a_name_that_a_template_does_not_read_is_told_which_ones_it_reads():
    with pytest.raises(TemplateError, match=r"'enable_thinkin', which .* Did you mean enable_thinking\?"):
        flat(QWEN3, enable_thinkin=False)
    with pytest.raises(TemplateError, match=r"'budget', which .* There are: enable_thinking\."):
        flat(QWEN3, budget=5)
    with pytest.raises(TemplateError, match=r"There are: effort, enable_thinking\."):
        flat("{% if effort is not defined %}{% set effort = 1 %}{% endif %}" + QWEN3, budget=5)
    with pytest.raises(TemplateError, match=r"It reads none\."):
        flat("{{ messages[0].content }}", enable_thinking=False)
    with pytest.raises(TemplateError, match=r"^.{1,400}$"):
        flat(QWEN3, **{"x" * 100_000: 1})


@pytest.mark.parametrize("name", ["self", "loop", "varargs", "x y", "", "__class__", "\ud800"])
def test_names_that_no_template_could_read(name: str):
    with pytest.raises(TemplateError, match="does not read"):
        flat("{% for m in messages %}{{ loop.index }}{{ self }}{{ m.content }}{% endfor %}", **{name: 1})


@pytest.mark.parametrize(
    "source",
    [
        "{% macro m(a) %}{{ a }}{{ x }}{% endmacro %}{{ m(1) }}",
        "{% macro m(a=x) %}{{ a }}{% endmacro %}{{ m() }}",
        "{% for m in messages if x %}{% endfor %}",
        "{% for m in messages %}{% for n in [1] %}{{ x }}{% endfor %}{% endfor %}",
        "{% if not x is defined %}{% set x = 1 %}{% endif %}",
        "{% if x is not defined %}{% set x = 1 %}{% endif %}{{ x }}",
        "{% set x = x | default(true) %}",
        "{% set ns = namespace(a=x) %}",
        "{% set y %}{{ x }}{% endset %}",
        "{% if false %}{{ x }}{% endif %}",
        "{% filter upper %}{{ x }}{% endfilter %}",
        "{% macro m() %}{{ caller() }}{% endmacro %}{% call m() %}{{ x }}{% endcall %}",
    ],
)
def test_a_name_is_taken_wherever_the_template_reads_it(source: str):
    assert flat(source + "{{ messages[0].content }}", x=True)


@pytest.mark.parametrize(("template", "chat"), [(None, True), (ChatTemplate(QWEN3), False)])
def test_without_a_template_there_is_nothing_to_set(template: ChatTemplate | None, chat: bool):
    with pytest.raises(TemplateError, match="no chat template") as refused:
        render(ASKED, template=template, chat=chat, chat_template_kwargs={"enable_thinking": False})
    assert refused.value.details == {"param": "chat_template_kwargs"}
    assert render(ASKED, template=template, chat=chat, chat_template_kwargs={})


def test_a_template_may_refuse_a_value():
    source = "{% if effort not in ['low'] %}{{ raise_exception('No such effort') }}{% endif %}{{ messages[0].content }}"
    assert flat(source, effort="low")
    with pytest.raises(TemplateError, match="refuses this conversation: No such effort"):
        flat(source, effort="high")
    with pytest.raises(TemplateError, match="refuses this conversation"):
        flat(source, effort=[])


class TestReasoning:
    """Whether earlier answers are told without it."""

    KEPT = QWEN3.replace("and '</think>'", "and not keep_thoughts and '</think>'")

    def test_it_is_left_out_whatever_else_is_set(self):
        assert ChatTemplate(QWEN3).leaves_out_reasoning({})
        assert ChatTemplate(QWEN3).leaves_out_reasoning({"enable_thinking": False})
        assert ChatTemplate(QWEN3).leaves_out_reasoning({"enable_thinking": True})
        assert not ChatTemplate("{{ messages[0].content }}").leaves_out_reasoning({})

    def test_it_is_kept_where_the_program_has_that_set(self):
        assert ChatTemplate(self.KEPT).leaves_out_reasoning({})
        assert ChatTemplate(self.KEPT).leaves_out_reasoning({"keep_thoughts": False})
        assert not ChatTemplate(self.KEPT).leaves_out_reasoning({"keep_thoughts": True})

    def test_a_template_that_fails_over_it_is_taken_as_written(self):
        assert ChatTemplate(QWEN3 + "{{ 1 / n }}").leaves_out_reasoning({"n": 0})


def prefix(source: str, **kwargs: Any) -> Prefix:
    spec = NewRequest(id=RequestId("r"), function="f", model="m", segments=flat(source, **kwargs))
    session = Session(id=SessionId("s"), tenant=TenantId("t"), lease_seconds=1.0, began=0.0)
    request = Request(spec=spec, session=session, inputs=(LATE,), outputs=(ANSWER,), times=Times(submitted=0.0))
    return prefix_of(request, lambda _: 100.0)


def test_prompts_share_what_comes_before_the_first_difference():
    on, same, off = prefix(QWEN3), prefix(QWEN3, enable_thinking=True), prefix(QWEN3, enable_thinking=False)
    assert on.boundaries == same.boundaries
    ends = [(one.hash == other.hash) for one, other in zip(on.boundaries, off.boundaries, strict=True)]
    known = ends.index(False)
    assert all(ends[:known])
    assert on.boundaries[known - 1].chars == len("<|im_start|>user\n") + len("Parrots? " * 40) + 100.0, "with the value"
    assert not any(ends[known:]), "from where the answer is opened on"


def test_prompts_that_differ_at_once_share_nothing():
    early = "{{ 'Think. ' if enable_thinking }}" + QWEN3
    on, off = prefix(early, enable_thinking=True), prefix(early, enable_thinking=False)
    assert not {one.hash for one in on.boundaries} & {one.hash for one in off.boundaries}


def test_roles_stay_what_they_are():
    talk = (RoleSwitch(Role.SYSTEM), Text("Be brief."), RoleSwitch(Role.USER), Text("Hi"), ASKED[-1])
    assert written(QWEN3, *talk, enable_thinking=False) == (
        f"<|im_start|>system\n<|im_end|>\n<|im_start|>user\n<|im_end|>\n<|im_start|>assistant\n{NO_THOUGHT}"
    )


class TestPublished:
    """How far prompts are those that all tenants share, where templates are told of more than texts."""

    SOURCE = (
        "{{ '<s>' }}{{ messages[0].content }}{% if tools %}{{ tools | tojson }}{% endif %}{{ note if note }}"
        "{{ messages[0].name if messages[0].name }}{{ '<u>' }}{{ messages[1].content }}{{ '<a>' if quick else '<b>' }}"
    )

    def shared(self, source: str = SOURCE, extra: Any = None, tools: Any = (), **kwargs: Any) -> str:
        talk = (RoleSwitch(Role.SYSTEM, True, extra or {}), Text("Agreed."), RoleSwitch(Role.USER), Text("Hi"))
        template = ChatTemplate(source)
        told = render((*talk, ASKED[-1]), template=template, chat=True, tools=tools, chat_template_kwargs=kwargs)
        public = told[: published_pieces(told, {"Agreed."})]
        return "".join(part.text for part in public if isinstance(part, Text))

    def test_what_the_template_writes_of_texts_is_shared(self):
        assert self.shared() == self.shared(note="") == self.shared(quick=True) == "<s>Agreed.<u>"

    @pytest.mark.parametrize("more", [{"tools": [{"key": 1}]}, {"extra": {"name": "Polly"}}, {"note": "Secret."}])
    def test_what_it_writes_of_a_tenant_s_own_is_not(self, more: dict[str, Any]):
        assert self.shared(**more) == "<s>Agreed."
        assert self.shared("{{ tools }}{{ note }}{{ messages[0].name }}" + self.SOURCE, **more) == ""

    def test_nothing_is_where_texts_alone_would_be_refused(self):
        assert self.shared("{{ 1 / (1 if note else 0) }}" + self.SOURCE, note="Secret.") == ""
