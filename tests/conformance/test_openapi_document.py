"""The OpenAPI document: whatever is sent, no route faults, and each answers only as the document says."""

import contextlib
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ENDLESS = ("/stream", "/calls")
SECONDS = 20
LOOK = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), phases=(Phase.generate,), database=None
)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_every_answer_is_documented(fake_url: str, mode: schemathesis.GenerationMode):
    document = schemathesis.openapi.from_url(f"{fake_url}/openapi.json")
    operations = [found.ok() for found in document.get_all_operations()]
    assert len(operations) > 15
    checked = 0
    for operation in operations:
        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong about what takes nothing
            LOOK(given(operation.as_strategy(generation_mode=mode))(_check))()
            checked += 1
    assert checked > 10
    assert requests.get(f"{fake_url}/readyz", timeout=SECONDS).ok


def _check(case: schemathesis.Case) -> None:
    _in_bounded_time(case)
    try:
        response = case.call(timeout=SECONDS)
    except requests.exceptions.ReadTimeout:
        assert case.path.endswith(ENDLESS), "only streams of what may still come go on for ever"
        return
    case.validate_response(response, checks=CHECKS)


def _in_bounded_time(case: schemathesis.Case) -> None:
    """What waits, waits for a moment; what is written is short."""
    body: Any = case.body
    if case.path.endswith("/variables/{variable}") and isinstance(case.query, dict):
        case.query.setdefault("timeout", 0.1)
    if isinstance(body, dict):
        body.pop("ignore_eos", None)
        for wait in body["wait"] if isinstance(body.get("wait"), list) else ():
            if isinstance(wait, dict) and wait.get("timeout") is None:
                wait["timeout"] = 0.1
