"""Calls that a service refuses: who is told of it, and who is not."""

import pytest
from fake_service import FakeService
from test_semantic_functions import WritePythonCode, WriteTestCode

import Parrot as P
from parrotserve.errors import (
    ForeignVariable,
    InvalidSchema,
    ServiceUnavailable,
    TooLarge,
    UnknownModel,
)
from parrotserve.protocol import Submit


class TestRefusals:
    def test_a_refused_call_fails_where_it_is_read(self, service: FakeService):
        service.refused["WritePythonCode"] = UnknownModel("There is no model 'x'.")
        variable = WritePythonCode("x")
        for _ in range(2):
            with pytest.raises(UnknownModel, match="no model 'x'"):
                variable.get()

    def test_a_bad_call_harms_no_other(self, service: FakeService):
        @P.SemanticFunction
        def Bad(x: str):
            """{{input:x}}{{output:bad}}"""

        service.refused["Bad"] = UnknownModel("There is no such model.")
        task = P.SemanticVariable("x")
        bad, good = Bad(task), WritePythonCode(task)
        below, beside = WriteTestCode(task, bad), WriteTestCode(task, good)
        assert P.gather(good, beside) == ["<code>", "<test>"]
        for variable in (bad, below):
            with pytest.raises(UnknownModel):
                variable.get()

    def test_a_produced_variable_of_another_session(self, service: FakeService):
        with P.Session():
            code = WritePythonCode("x")
            assert code.get() == "<code>"
        with P.Session() as other, pytest.raises(ForeignVariable, match=r"code .* belongs to session"):
            WriteTestCode("x", code)
        assert other.id not in {body.session for body in service.submits}

    def test_the_rest_of_a_big_batch_gets_in_whatever_is_refused(self, service: FakeService):
        @P.SemanticFunction
        def Bad(x: str, y: str):
            """{{input:x}}{{input:y}}{{output:bad}}"""

        service.refused["Bad"] = UnknownModel("There is no such model.")
        shared = P.SemanticVariable("shared")
        good: list[P.SemanticVariable] = []
        bad: list[P.SemanticVariable] = []
        for number in range(20):
            if number in (0, 7, 19):
                # The first of them is the first to name the shared variable.
                bad.append(Bad(shared, good[-1] if good else "x"))
                bad.append(WriteTestCode(shared, bad[-1]))
            good.append(WriteTestCode(shared, good[-1] if good else "x"))
        assert P.gather(good) == ["<test>"] * 20
        for variable in bad:
            with pytest.raises(UnknownModel):
                variable.get()
        assert len(service.requests) == 20

    def test_a_service_that_goes_while_the_rest_is_sent_can_be_asked_again(self, service: FakeService):
        @P.SemanticFunction
        def Bad(x: str):
            """{{input:x}}{{output:bad}}"""

        service.refused["Bad"] = UnknownModel("There is no such model.")
        service.fragile = 2
        bad, good = Bad("x"), WritePythonCode("x")
        with pytest.raises(ServiceUnavailable):
            good.get()
        assert good.get() == "<code>"
        with pytest.raises(UnknownModel):
            bad.get()

    def test_a_session_that_is_full_is_asked_a_few_times_only(self, service: FakeService):
        service.most_requests = 10
        task = P.SemanticVariable("shared")
        variables = [WriteTestCode(task, f"{number}") for number in range(500)]
        with pytest.raises(TooLarge, match="has 10"):
            P.gather(variables)
        for variable in variables[10:]:
            with pytest.raises(TooLarge, match="has 10"):
                variable.get()
        assert P.gather(variables[:10]) == ["<test>"] * 10
        assert len(service.submits) < 50
        with pytest.raises(TooLarge, match="has 10"):
            WritePythonCode("after").get()
        assert len(service.submits) < 60

    def test_a_model_that_is_not_there_is_asked_for_a_few_times_only(self, service: FakeService):
        @P.SemanticFunction(model="absent")
        def Bad(x: str):
            """{{input:x}}{{output:bad}}"""

        service.refused["Bad"] = UnknownModel("There is no such model.", model="absent")
        task = P.SemanticVariable("set by the first that reads it")
        bad = [Bad(task) for _ in range(500)]
        below = [WriteTestCode(f"{number}", each) for number, each in enumerate(bad)]
        good = WriteTestCode(task, WritePythonCode("x"))
        assert good.get() == "<test>"
        for variable in (*bad, *below):
            with pytest.raises(UnknownModel):
                variable.get()
        assert len(service.submits) < 50

    @pytest.mark.parametrize(("bad", "most"), [(1, 2), (5, 11), (64, 65)])
    def test_of_many_that_are_each_refused_for_a_reason_of_its_own_few_are_sent_again(
        self, service: FakeService, monkeypatch: pytest.MonkeyPatch, bad: int, most: int
    ):
        @P.SemanticFunction
        def Bad(x: str):
            """{{input:x}}{{output:bad}}"""

        check = service._check

        def name_the_first(body: Submit) -> None:
            for request in body.requests:
                if request.function == "Bad":
                    raise InvalidSchema(f"'Bad' ({request.id}): no such schema.", request=request.id)
            check(body)

        monkeypatch.setattr(service, "_check", name_the_first)
        step = 64 // bad
        made = [Bad(str(number)) if number % step == 0 and number < bad * step else WritePythonCode(str(number))
                for number in range(64)]  # fmt: skip
        got = P.gather(*made, return_exceptions=True)
        failed = [one for one in got if isinstance(one, InvalidSchema)]
        assert [one for one in got if isinstance(one, str)] == ["<code>"] * (64 - bad)
        assert len({str(one) for one in failed}) == len(failed) == bad
        # The first submit, one for each refusal and those that were taken; the inputs of what was refused; the waits.
        sent = [body for body in service.submits if body.requests]
        assert len(sent) - 1 <= most
