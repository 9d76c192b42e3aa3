"""How a docstring becomes a template, and what is said where it cannot."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrotserve.errors import InvalidTransform, TemplateError
from parrotserve.sdk.blame import Blame
from parrotserve.sdk.template import InputPart, OutputPart, RolePart, TextPart, dedent, parse_template
from parrotserve.segments import Role
from parrotserve.transforms import Transform


def Example(task: str):
    """Nothing."""


def parse(docstring: str, inputs: tuple[str, ...] = ("task",), outputs: tuple[str, ...] = ()):
    return parse_template(docstring, inputs=inputs, outputs=outputs, blame=Blame(Example)).parts


class TestReading:
    def test_the_published_program(self):
        docstring = """ You are an expert software engineer.
    Write python code of {{input:task}}.
    Code: {{output:code}}
    """
        assert parse(docstring) == (
            TextPart("You are an expert software engineer.\nWrite python code of "),
            InputPart("task"),
            TextPart(".\nCode: "),
            OutputPart("code"),
        )

    def test_transforms_apply_from_left_to_right(self):
        assert parse("{{ input : task | code_block | lines(1, 20) }}{{output:y}}")[0] == InputPart(
            "task", (Transform("code_block"), Transform("lines", (1, 20)))
        )

    def test_an_input_may_appear_twice(self):
        assert parse("{{input:task}}{{input:task | strip}}{{output:y}}")[:2] == (
            InputPart("task"),
            InputPart("task", (Transform("strip"),)),
        )

    def test_roles_swallow_the_white_space_around_them(self):
        docstring = """
        {{role:system}}
            You write code.
        {{role:user}} Write {{input:task}}.
        {{role:assistant}}
        {{output:code}}
        """
        assert parse(docstring) == (
            RolePart(Role.SYSTEM),
            TextPart("You write code."),
            RolePart(Role.USER),
            TextPart("Write "),
            InputPart("task"),
            TextPart("."),
            RolePart(Role.ASSISTANT),
            OutputPart("code"),
        )

    def test_bare_names_are_told_apart_by_the_annotations(self):
        assert parse("{{task}}: {{code}}", outputs=("code",)) == (
            InputPart("task"),
            TextPart(": "),
            OutputPart("code"),
        )

    def test_white_space_that_is_not_layout_stays(self):
        assert parse("a  {{input:task}} \n\n b {{output:y}}")[::2] == (TextPart("a  "), TextPart(" \n\nb "))


class TestBraces:
    def test_json_needs_no_escape(self):
        assert parse('{"a": {"b": [{}]}} {{input:task}}{{output:y}}')[0] == TextPart('{"a": {"b": [{}]}} ')

    def test_four_braces_stand_for_two(self):
        assert parse("{{{{input:task}} {{input:task}}{{output:y}}")[0] == TextPart("{{input:task}} ")

    def test_a_placeholder_within_braces(self):
        assert parse("{{{input:task}}} {{output:y}}") == (
            TextPart("{"),
            InputPart("task"),
            TextPart("} "),
            OutputPart("y"),
        )

    @given(st.text(alphabet="ab{} \n|:'", max_size=20))
    def test_any_text_can_be_written(self, text: str):
        # A lone brace at the end would touch the placeholder's: that is the author's to separate.
        text = f"a{text}b"
        parts = parse(text.replace("{{", "{{{{") + "{{input:task}}{{output:y}}")
        assert parts == (TextPart(dedent(text)[0]), InputPart("task"), OutputPart("y"))


class TestDedent:
    @pytest.mark.parametrize(
        ("docstring", "text"),
        [
            ("one line", "one line"),
            ("  first\n      second\n        third\n    ", "first\nsecond\n  third"),
            ("\n\n    first\n    second\n\n", "first\nsecond"),
            ("first\n\n    second", "first\n\nsecond"),
            ("first\n\tsecond\n\t\tthird", "first\nsecond\n\tthird"),
            ("   \n  ", ""),
        ],
    )
    def test_margins_and_outer_blank_lines_go(self, docstring: str, text: str):
        assert dedent(docstring)[0] == text

    @pytest.mark.parametrize("piece", ["{{input:task}}\n", "{{{input:task}}}"])
    def test_a_placeholder_takes_no_longer_the_more_there_are_before_it(self, piece: str):
        count = 30_000
        started = time.process_time()
        parts = parse(piece * count + "{{output:y}}")
        assert time.process_time() - started < 3  # counting lines from the first one on takes 10
        assert parts.count(InputPart("task")) == count


class TestErrors:
    @pytest.mark.parametrize(
        ("docstring", "said"),
        [
            ("{{input:tsk}} {{output:y}}", "{{input:tsk}}: there is no parameter 'tsk'; did you mean 'task'?"),
            ("{{tsk}} {{output:y}}", "{{tsk}}: there is no parameter 'tsk'; did you mean 'task'?"),
            ("{{input.task}} {{output:y}}", "{{input.task}}: 'input.task' is not a Python name; write {{input:task}}."),
            ("{{output y}} {{input:task}}", "{{output y}}: 'output y' is not a Python name; write {{output:y}}."),
            ("{{a-b}} {{input:task}} {{output:y}}", "{{a-b}}: 'a-b' is not a Python name; for the text `{{`, write"),
            (
                "{{system}} {{input:task}} {{output:y}}",
                "{{system}}: for who speaks from here on, write {{role:system}}",
            ),
            ("{{input:task}} {{output:_y}} {{output:z}}", "the output '_y' cannot be a field of the named tuple"),
            ("{{input:task}} {{output:y}} {{output:class}}", "the output 'class' cannot be a field of the named tuple"),
            ("{{inptu:task}} {{output:y}}", "'inptu' is not a kind of placeholder; did you mean 'input'?"),
            ("{{role:usr}} {{output:y}}", "'usr' is not a role; did you mean 'user'?"),
            ("{{input:task}} {{output:y}} {{output:y}}", "{{output:y}}: the output 'y' appears twice"),
            ("{{output:task}}", "{{output:task}}: 'task' is a parameter already"),
            ("{{input:task}} {{output:y}} {{input:y}}", "{{input:y}}: 'y' is an output of this function"),
            ("{{input:task}}", "the docstring has no output"),
            ("{{output:y}}", "the parameter 'task' is not in the docstring"),
            ("{{input:task}} {{output:y", "{{output:y: no `}}` closes it on its line"),
            ("{{input:\ntask}} {{output:y}}", "{{input:: no `}}` closes it on its line"),
            ("{{input:task's}} {{output:y}}", "{{input:task's}}: this is not a placeholder"),
            ("{{input:}} {{output:y}}", "'' is not a Python name"),
            ("{{input:a b}} {{output:y}}", "'a b' is not a Python name"),
            ("{{}} {{output:y}}", "'' is not a Python name; for the text `{{`, write `{{{{`."),
            ("{{input:task}} {{output:y | strip}}", "{{output:y | strip}}: only inputs take transforms"),
            ("{{role:user | strip}} {{output:y}}", "only inputs take transforms"),
        ],
    )
    def test_what_is_wrong_is_said_with_the_placeholder(self, docstring: str, said: str):
        with pytest.raises(TemplateError) as caught:
            parse(docstring)
        assert said in caught.value.message

    @pytest.mark.parametrize("transform", ["strp", "lines(1)", "lines(x, y)", "lines(-1, 2)", "truncate('a')", ""])
    def test_transforms_are_checked_when_they_are_declared(self, transform: str):
        with pytest.raises(InvalidTransform) as caught:
            parse(f"{{{{input:task | {transform}}}}} {{{{output:y}}}}")
        assert "Example (test_templates.py:" in caught.value.message
        assert caught.value.details["placeholder"] == f"{{{{input:task | {transform}}}}}"

    def test_the_line_of_the_file_is_named(self):
        def Wrong(task: str):
            """First line.
            Second, {{input:task}}.
            Third, {{input:tsk}}: {{output:y}}
            """

        with pytest.raises(TemplateError) as caught:
            parse_template(Wrong.__doc__ or "", inputs=("task",), outputs=(), blame=Blame(Wrong))
        line = Wrong.__code__.co_firstlineno + 3
        assert caught.value.message.startswith(f"Wrong (test_templates.py:{line}): {{{{input:tsk}}}}:")
        assert caught.value.details["line"] == str(line)

    def test_without_source_the_line_counts_from_the_docstring(self):
        scope: dict[str, object] = {}
        exec("def Made(task):\n    'a\\n{{input:tsk}}{{output:y}}'", scope)
        made = scope["Made"]
        assert callable(made)
        with pytest.raises(TemplateError, match=r"Made \(<string>:1, line 2 of the docstring\)"):
            parse_template(made.__doc__ or "", inputs=("task",), outputs=(), blame=Blame(made))
