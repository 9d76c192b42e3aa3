"""Semantic variables where a text is wanted: what gives their text, and what says how to get it."""

import copy
import pickle
from typing import Any

import pytest
from fake_service import FakeService

import Parrot as P


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


class TestAsText:
    def test_known_text_goes_into_f_strings(self, service: FakeService):
        text = Write("x")
        text.get()
        assert f"{text:>8}|{P.SemanticVariable('y')}" == "  <text>|y"

    def test_unknown_text_does_not(self, service: FakeService):
        with pytest.raises(TypeError, match=r"text PRODUCING> has no text here yet: pass the variable itself"):
            f"{Write('x')}"

    def test_repr_shows_the_beginning(self):
        assert repr(P.SemanticVariable("a" * 50, name="n")) == f"<SemanticVariable n READY: '{'a' * 39}…'>"


class TestNoText:
    """What Python would answer without looking at the value is refused: somebody forgot to get it."""

    @pytest.mark.parametrize("known", [True, False])
    def test_a_variable_is_neither_true_nor_false(self, service: FakeService, known: bool):
        variable = P.SemanticVariable("yes") if known else Write("x")
        with pytest.raises(TypeError, match=r"has no truth value; test what get\(\) returns"):
            bool(variable)

    @pytest.mark.parametrize("known", [True, False])
    def test_a_variable_equals_no_text(self, service: FakeService, known: bool):
        variable = P.SemanticVariable("yes") if known else Write("x")
        for compare in (lambda: variable == "yes", lambda: variable != "yes", lambda: variable in ["yes"]):
            with pytest.raises(TypeError, match=r"equals none; compare what get\(\) returns with 'yes'"):
                compare()

    @pytest.mark.parametrize("known", [True, False])
    def test_what_only_a_text_can_says_how_to_get_one(self, service: FakeService, known: bool):
        variable: Any = P.SemanticVariable("yes") if known else Write("x")
        for use in (lambda: variable + "!", lambda: "So: " + variable, lambda: "yes" in variable):
            with pytest.raises(TypeError, match=r"is not a text: use what get\(\) returns, or put the rest into"):
                use()
        with pytest.raises(AttributeError, match=r"is not a text and has no 'split': use it on what get\(\)") as caught:
            variable.split()
        assert (caught.value.name, hasattr(variable, "strip")) == ("split", False)

    def test_what_nothing_has_is_told_as_python_does(self):
        variable: Any = P.SemanticVariable("yes")
        with pytest.raises(AttributeError, match="'SemanticVariable' object has no attribute 'gett'") as caught:
            variable.gett()
        assert caught.value.obj is variable  # from which Python guesses what was meant

    def test_a_copy_is_the_variable_itself(self, service: FakeService):
        variable = Write("x")
        assert copy.copy(variable) is variable
        assert copy.deepcopy({"said": [variable]})["said"][0] is variable

    @pytest.mark.parametrize("known", [True, False])
    def test_it_stays_in_its_process(self, service: FakeService, known: bool):
        with pytest.raises(TypeError, match=r"cannot be pickled: pass on the text that get\(\) returns"):
            pickle.dumps(P.SemanticVariable("yes") if known else Write("x"))

    def test_it_equals_itself_alone(self):
        one, other = P.SemanticVariable("x"), P.SemanticVariable("x")
        assert one != other
        assert one != 3
        assert one in [other, one]
        assert {one: 1, other: 2}[one] == 1

    def test_nothing_is_no_text_to_set(self):
        variable = P.SemanticVariable()
        with pytest.raises(TypeError, match="None is not a text"):
            variable.set(None)
        variable.set("")
        assert variable.get() == ""
