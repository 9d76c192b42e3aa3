"""Errors keep their class, message and details on the wire and between processes."""

import copy
import pickle
import re
from pathlib import Path

import pytest

from parrotserve import errors
from parrotserve.errors import ParrotError, from_wire

EVERY_CLASS = sorted(ParrotError.by_code.values(), key=lambda kind: kind.code)


def test_codes_are_the_class_names_in_snake_case():
    assert errors.ContextExceeded.code == "context_exceeded"
    assert errors.ParrotError.code == "parrot_error"


@pytest.mark.parametrize("kind", EVERY_CLASS, ids=lambda kind: kind.code)
def test_an_error_comes_back_from_the_wire_as_itself(kind: type[ParrotError]):
    sent = kind("It broke; mend it.", request="r-1")
    received = from_wire(sent.code, sent.message, sent.details)
    assert type(received) is kind
    assert str(received) == "It broke; mend it."
    assert received.details == {"request": "r-1"}


@pytest.mark.parametrize("again", [copy.copy, lambda error: pickle.loads(pickle.dumps(error))], ids=["copy", "pickle"])
def test_an_error_survives_copying_and_another_process(again):
    error = again(errors.EngineFailed("It died.", engine="e-1"))
    assert (type(error), error.message, error.details) == (errors.EngineFailed, "It died.", {"engine": "e-1"})


def test_a_code_of_a_later_version_is_still_an_error_of_ours():
    received = from_wire("invented_later", "Something new.")
    assert type(received) is ParrotError
    assert received.message == "Something new."


def test_every_code_is_documented_with_its_status():
    page = (Path(__file__).parents[2] / "docs" / "http.md").read_text("utf-8").partition("## Errors")[2]
    rows = re.findall(r"^\| (\d{3}) \| (.*) \|$", page, re.MULTILINE)
    told = {code: int(status) for status, codes in rows for code in re.findall(r"`([a-z]+(?:_[a-z]+)*)`", codes)}
    framework = {"invalid_request": 422, "method_not_allowed": 405, "unsupported_media_type": 415}
    assert told == {kind.code: kind.status for kind in EVERY_CLASS} | framework


@pytest.mark.parametrize("kind", EVERY_CLASS, ids=lambda kind: kind.code)
def test_every_error_has_a_status_that_http_knows_as_one(kind: type[ParrotError]):
    assert 400 <= kind.status <= 599
