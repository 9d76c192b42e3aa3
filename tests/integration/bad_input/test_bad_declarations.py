"""Bad declarations fail when they are made."""

from collections.abc import Callable

import pytest
from bad_input import Echo, declared

import Parrot as P
from parrotserve.errors import (
    DeclarationError,
    InvalidSampling,
    InvalidSchema,
    InvalidTransform,
    TemplateError,
)


class TestDeclarations:
    @pytest.mark.parametrize(
        ("docstring", "error", "message"),
        [
            ("{{input:txt}} {{output:y}}", TemplateError, r"no parameter 'txt'; did you mean 'text'\?$"),
            ("{{input:text}} {{output:y}} {{output:y}}", TemplateError, "'y' appears twice"),
            ("{{input:text}}", TemplateError, "has no output"),
            ("{{output:y}}", TemplateError, "'text' is not in the docstring"),
            ("{{input:text} {{output:y}}", TemplateError, "is not a placeholder"),
            ("{{imput:text}} {{output:y}}", TemplateError, "did you mean 'input'"),
            ("{{role:users}} {{input:text}} {{output:y}}", TemplateError, "did you mean 'user'"),
            ("{{input:text | stripp}} {{output:y}}", InvalidTransform, "did you mean .strip.. There are: .*strip"),
            ("", TemplateError, "no docstring"),
        ],
    )
    def test_templates(self, docstring: str, error: type[Exception], message: str):
        with pytest.raises(error, match=message):
            declared(docstring)

    @pytest.mark.parametrize(
        ("option", "value", "error"),
        [
            ("max_tokens", 0, InvalidSampling),
            ("max_tokens", -1, InvalidSampling),
            ("max_tokens", "8", InvalidSampling),
            ("max_tokens", 1.5, InvalidSampling),
            ("max_tokens", None, InvalidSampling),
            ("temperature", -1, InvalidSampling),
            ("stop", [""], InvalidSampling),
            ("stop", 5, InvalidSampling),
            ("stop", None, InvalidSampling),
            ("logit_bias", {-1: 1.0}, InvalidSampling),
            ("logit_bias", {"a": 1.0}, InvalidSampling),
            ("logit_bias", {1: "much"}, InvalidSampling),
            ("logit_bias", [1, 2], InvalidSampling),
            ("ignore_eos", "no", InvalidSampling),
            ("keep_space", 1, InvalidSampling),
            ("schema", "{}", InvalidSchema),
            ("schema", {"enum": {1, 2}}, InvalidSchema),
            ("model", 3, DeclarationError),
            ("chat", "no", DeclarationError),
            ("outputs", [("y", 1)], DeclarationError),
        ],
    )
    def test_options(self, option: str, value: object, error: type[Exception]):
        with pytest.raises(error, match=option):
            declared("{{input:text}} {{output:y}}", **{option: value})

    def test_misspelt_options(self):
        with pytest.raises(DeclarationError, match=r"'max_token'; did you mean 'max_tokens'\?"):
            declared("{{input:text}} {{output:y}}", max_token=3)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: Echo(),
            lambda: Echo("a", "b"),
            lambda: Echo(txt="a"),
            lambda: Echo(None),
            lambda: Echo([None, P.SemanticVariable("x")]),
        ],
    )
    def test_arguments(self, call: Callable[[], object]):
        with pytest.raises(TypeError, match="text"):
            call()

    def test_variables_without_a_text(self):
        with pytest.raises(TypeError, match="no text here yet"):
            f"{P.SemanticVariable(name='task')}"
