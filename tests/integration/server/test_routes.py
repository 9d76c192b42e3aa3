"""Every endpoint, as any HTTP client sees it."""

import json
import re
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from httpx_sse import ServerSentEvent
from prometheus_client.parser import text_string_to_metric_families

from parrotserve.server.routes import sessions

Client = Callable[..., Awaitable[httpx.AsyncClient]]
DOCS = Path(__file__).parents[3] / "docs"


def program(*wait: dict[str, Any], text: str = "tell") -> dict[str, Any]:
    """Two requests, the second of which needs the first."""
    return {
        "session": "s1",
        "variables": [{"id": "tale"}, {"id": "end"}],
        "requests": [
            {
                "id": "r1",
                "function": "Tell",
                "segments": [{"kind": "text", "text": text}, {"kind": "output", "variable": "tale"}],
            },
            {
                "id": "r2",
                "function": "End",
                "segments": [
                    {"kind": "input", "variable": "tale"},
                    {"kind": "text", "text": " then"},
                    {"kind": "output", "variable": "end"},
                ],
            },
        ],
        "wait": list(wait),
    }


def events_of(answer: httpx.Response) -> list[ServerSentEvent]:
    """The events of a finished stream."""
    assert answer.headers["content-type"].startswith("text/event-stream")
    events: list[ServerSentEvent] = []
    for block in answer.text.split("\n\n"):
        lines = [line for line in block.split("\n") if line and not line.startswith(":")]
        fields = dict(line.split(": ", 1) for line in lines)
        if fields:
            events.append(
                ServerSentEvent(**{key: value for key, value in fields.items() if key in {"event", "data", "id"}})
            )
    return events


def code_of(answer: httpx.Response) -> str:
    return answer.json()["error"]["code"]


async def test_a_whole_program_is_one_exchange(served: Client):
    client = await served()
    answer = await client.post("/v1/submit", json=program({"variable": "end"}, {"variable": "tale", "stream": True}))
    events = [(event.event, event.json()) for event in events_of(answer)]
    assert events[0] == ("accepted", {"event": "accepted", "session": "s1"})
    values = {body["variable"]: body["value"] for kind, body in events if kind == "value"}
    assert values == {"tale": "a tale 🦘 of some length", "end": "the end"}
    assert "".join(body["text"] for kind, body in events if kind == "delta") == values["tale"]


async def test_a_batch_that_waits_for_nothing_is_answered_at_once(served: Client):
    client = await served(ticking=True)
    answer = await client.post("/v1/submit", json=program())
    assert answer.json() == {"event": "accepted", "session": "s1"}


async def test_a_refused_batch_is_an_error_and_no_stream(served: Client):
    client = await served()
    body = program({"variable": "end"}) | {"requests": [program()["requests"][1]], "variables": [{"id": "end"}]}
    answer = await client.post("/v1/submit", json=body)
    assert (answer.status_code, code_of(answer)) == (404, "unknown_object")


async def test_a_value_is_waited_for(served: Client):
    client = await served()
    await client.post("/v1/submit", json=program())
    answer = await client.get("/v1/sessions/s1/variables/end", params={"criteria": "throughput", "timeout": 60})
    assert answer.json() == {"event": "value", "variable": "end", "value": "the end", "reason": "stop", "logprobs": []}


async def test_a_wait_that_runs_out_says_so(served: Client):
    client = await served(ticking=True)
    await client.post("/v1/submit", json=program())
    answer = await client.get("/v1/sessions/s1/variables/end", params={"timeout": 0.001})
    assert (answer.status_code, code_of(answer)) == (408, "get_timeout")


async def test_a_failure_is_an_error_answer_with_its_cause(served: Client):
    client = await served(context_length=3)
    await client.post("/v1/submit", json=program())
    answer = await client.get("/v1/sessions/s1/variables/end")
    assert (answer.status_code, code_of(answer)) == (422, "context_exceeded")
    assert "Tell" in answer.json()["error"]["message"]


async def test_a_stream_is_numbered_by_characters_and_resumes(served: Client):
    client = await served()
    await client.post("/v1/submit", json=program({"variable": "tale"}))
    whole = events_of(await client.get("/v1/sessions/s1/variables/tale/stream"))
    assert [(event.event, event.id) for event in whole] == [("delta", "23"), ("value", "23")]
    for place in ({"headers": {"Last-Event-ID": "8"}}, {"params": {"offset": 8}}):
        answer = await client.get("/v1/sessions/s1/variables/tale/stream", **place)
        delta, value = (event.json() for event in events_of(answer))
        assert (delta["offset"], delta["text"]) == (8, " of some length")
        assert value["value"] == "a tale 🦘 of some length"


@pytest.mark.parametrize("place", [{"headers": {"Last-Event-ID": "x"}}, {"params": {"offset": -1}}])
async def test_a_place_that_is_none_is_refused(served: Client, place: dict[str, Any]):
    client = await served()
    await client.post("/v1/submit", json=program())
    answer = await client.get("/v1/sessions/s1/variables/tale/stream", **place)
    assert (answer.status_code, code_of(answer)) == (422, "invalid_request")


async def test_a_variable_is_set_once(served: Client):
    client = await served()
    await client.post("/v1/submit", json={"session": "s1", "variables": [{"id": "v"}]})
    first = await client.put("/v1/sessions/s1/variables/v", json={"value": "text"})
    assert (first.status_code, first.content) == (204, b"")
    assert (await client.get("/v1/sessions/s1/variables/v")).json()["value"] == "text"
    again = await client.put("/v1/sessions/s1/variables/v", json={"value": "other"})
    assert (again.status_code, code_of(again)) == (409, "already_produced")


async def test_a_cancelled_variable_can_be_retried(served: Client):
    client = await served(ticking=True)
    await client.post("/v1/submit", json=program())
    assert (await client.delete("/v1/sessions/s1/variables/tale")).status_code == 204
    answer = await client.get("/v1/sessions/s1/variables/end")
    assert (answer.status_code, code_of(answer)) == (409, "cancelled")
    assert (await client.post("/v1/sessions/s1/variables/tale/retry")).status_code == 204
    states = {one["id"]: one["state"] for one in (await client.get("/v1/sessions/s1")).json()["variables"]}
    assert states == {"tale": "producing", "end": "producing"}


async def test_a_session_shows_its_graph_and_ends(served: Client):
    client = await served()
    await client.post("/v1/submit", json=program({"variable": "end"}))
    view = (await client.get("/v1/sessions/s1")).json()
    assert [(one["function"], one["state"], one["engine"]) for one in view["requests"]] == [
        ("Tell", "done", "fake-0"),
        ("End", "done", "fake-0"),
    ]
    assert (await client.delete("/v1/sessions/s1")).status_code == 204
    answer = await client.get("/v1/sessions/s1")
    assert (answer.status_code, code_of(answer)) == (404, "unknown_object")


@pytest.mark.parametrize("requests", [2, 300])
async def test_a_view_of_any_size_is_the_same_and_a_big_one_holds_nobody_up(
    served: Client, monkeypatch: pytest.MonkeyPatch, requests: int
):
    client = await served()
    names = [f"n{number}" for number in range(requests)]
    body = {
        "session": "s1",
        "variables": [*({"id": name, "name": "ä 🦘"} for name in names), {"id": "x", "value": '"1"'}, {"id": "y"}],
        "requests": [
            {"id": name, "segments": [{"kind": "text", "text": "tell"}, {"kind": "output", "variable": name}]}
            for name in names
        ],
        "calls": [{"id": "c", "function": "f", "inputs": ["x"], "output": "y"}],
        "wait": [{"variable": name} for name in names],
    }
    assert (await client.post("/v1/submit", json=body)).status_code == 200
    places: list[bool] = []
    write = sessions.session_json

    def noted(picture: Any) -> str:
        places.append(threading.current_thread() is threading.main_thread())
        return write(picture)

    monkeypatch.setattr(sessions, "session_json", noted)
    answer = await client.get("/v1/sessions/s1")
    assert answer.headers["content-type"] == "application/json"
    service = client._transport.app.state.service  # pyright: ignore[reportAttributeAccessIssue]
    assert answer.json() == service.session_view("s1").model_dump(mode="json")
    assert len(answer.json()["requests"]) == requests
    assert places == [requests == 2]
    assert (await client.get("/v1/sessions/s1/explain")).text.count("request (n") == requests


async def test_native_calls_are_answered_by_the_client(served: Client):
    client = await served()
    calls = [{"id": "c", "function": "f", "inputs": ["x"], "output": "y"}]
    variables = [{"id": "x", "value": "1"}, {"id": "y"}]
    await client.post("/v1/submit", json={"session": "s1", "variables": variables, "calls": calls})
    for _ in range(2):  # as where the answer to the first time was lost
        assert (await client.put("/v1/sessions/s1/calls/c", json={"value": "2"})).json() == {"state": "done"}
    assert (await client.get("/v1/sessions/s1/variables/y")).json()["value"] == "2"
    both = await client.put("/v1/sessions/s1/calls/c", json={"value": "2", "error": "3"})
    assert both.status_code == 422
    unknown = await client.put("/v1/sessions/s1/calls/d", json={"value": "2"})
    assert unknown.status_code == 404


async def test_a_result_of_an_earlier_attempt_at_a_native_call_is_ignored(served: Client):
    client = await served()
    calls = [{"id": "c", "function": "f", "inputs": ["x"], "output": "y"}]
    variables = [{"id": "x", "value": "1"}, {"id": "y"}]
    await client.post("/v1/submit", json={"session": "s1", "variables": variables, "calls": calls})
    await client.delete("/v1/sessions/s1/variables/y")
    await client.post("/v1/sessions/s1/variables/y/retry")
    for attempt, state in ((1, "offered"), (2, "done")):
        answer = await client.put(f"/v1/sessions/s1/calls/c?attempt={attempt}", json={"value": str(attempt)})
        assert (answer.status_code, answer.json()) == (200, {"state": state})
    assert (await client.get("/v1/sessions/s1/variables/y")).json()["value"] == "2"


async def test_what_is_served_can_be_looked_at(served: Client):
    client = await served()
    (model,) = (await client.get("/v1/models")).json()["data"]
    assert model.items() >= {"id": "fake", "name": "fake", "default": True, "context_length": 8192}.items()
    (engine,) = (await client.get("/v1/engines")).json()
    assert (engine["id"], engine["model"], engine["state"]) == ("fake-0", "fake", "up")


async def test_health_and_readiness(served: Client):
    from parrotserve.engines.fake import Faults

    client = await served(started=False, faults=Faults(start_seconds=3600))
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    answer = await client.get("/readyz")
    assert (answer.status_code, code_of(answer)) == (503, "service_unavailable")
    ready = await served()
    assert (await ready.get("/readyz")).status_code == 200


def of_segment(segment: dict[str, Any]) -> dict[str, Any]:
    return {"requests": [{"id": "r", "segments": [segment]}]}


@pytest.mark.parametrize(
    ("wrong", "place", "hint"),
    [
        ({"request": []}, "request", ", but there is 'requests'"),
        ({"requests": [{"id": "r", "segments": [], "chatt": True}]}, "requests.0.chatt", ", but there is 'chat'"),
        ({"wait": [{"variable": "v", "criterion": "ttft"}]}, "wait.0.criterion", ", but there is 'criteria'"),
        (of_segment({"kind": "text", "text": "x", "txet": "y"}), "requests.0.segments.0.txet", ", but there is 'text'"),
        (
            of_segment({"kind": "output", "variable": "v", "sampling": {"max_token": 3}}),
            "requests.0.segments.0.sampling.max_token",
            ", but there is 'max_tokens'",
        ),
        ({"zzz": 1}, "zzz", ""),
    ],
)
async def test_a_misspelt_field_is_told_with_the_one_that_is_meant(
    served: Client, wrong: dict[str, Any], place: str, hint: str
):
    client = await served()
    answer = await client.post("/v1/submit", json={"session": "s", **wrong})
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == f"body.{place}: there is no such field{hint}."


async def test_metrics_count_and_hold_no_prompt(served: Client):
    client = await served()
    await client.post("/v1/submit", json=program({"variable": "end"}, text="tell a secret"))
    answer = await client.get("/metrics")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert samples["parrot_sequences_total", "done"] == 2
    assert samples["parrot_tokens_total", "local", "output"] > 30
    assert samples["parrot_engine_up", "fake", "fake-0"] == 1
    assert samples["parrot_sessions",] == 1
    for phase in ("waiting", "running"):
        took = sum(value for name, value in samples.items() if name[0] == f"parrot_request_{phase}_seconds_count")
        assert took == 2, phase
    assert "secret" not in answer.text


async def test_counts_are_there_before_anything_is_counted(served: Client):
    client = await served()
    await client.post("/v1/submit", json={"session": "s1", "variables": [{"id": "empty"}]})
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families((await client.get("/metrics")).text)
        for sample in family.samples
        if sample.name.endswith("_total")
    }
    names = [
        *(("parrot_sequences_total", status) for status in ("done", "failed", "cancelled")),
        *(("parrot_tokens_total", *sorted(("local", kind))) for kind in ("prompt", "cached", "output")),
        ("parrot_engine_seconds_total", "local"),
        ("parrot_engine_losses_total", "fake"),
    ]
    assert samples == dict.fromkeys(names, 0)


async def test_every_metric_is_documented(served: Client):
    client = await served()
    await client.post("/v1/submit", json=program({"variable": "end"}))
    families = list(text_string_to_metric_families((await client.get("/metrics")).text))
    table = (DOCS / "http.md").read_text("utf-8").partition("## Metrics")[2].partition("\n## ")[0]
    names = {f"{each.name}_total" if each.type == "counter" else each.name for each in families}
    assert set(re.findall(r"`(parrot_\w+)`", table)) == {name for name in names if not name.endswith("_created")}


async def test_engines_tell_where_their_cache_is(served: Client):
    client = await served()
    await client.post("/v1/submit", json=program({"variable": "end"}))
    (engine,) = (await client.get("/v1/engines")).json()
    shown = {
        family.name.removeprefix("parrot_engine_"): family.samples[0].value
        for family in text_string_to_metric_families((await client.get("/metrics")).text)
        if family.name.startswith("parrot_engine_") and family.name.endswith("_tokens")
    }
    # What is used and cached may change between the two answers, as heartbeats come.
    assert shown.keys() == {"used_tokens", "cached_tokens", "free_tokens"} <= engine.keys()
    assert shown["free_tokens"] == engine["free_tokens"] > 0


async def test_the_interface_is_documented(served: Client):
    client = await served()
    assert "Parrot" in (await client.get("/docs")).text
    schema = (await client.get("/openapi.json")).json()
    assert "/v1/sessions/{session}/variables/{variable}/stream" in schema["paths"]
    assert "Submit" in json.dumps(schema["paths"]["/v1/submit"]["post"]["requestBody"])
    told = [method["responses"] for path in schema["paths"].values() for method in path.values()]
    errors = [answers[status] for answers in told for status in ("4XX", "5XX") if status in answers]
    assert len(errors) > 30
    assert all(list(error["content"]) == ["application/json"] for error in errors), "whatever else the route answers"
    streams = [one for one in told if "text/event-stream" in one.get("200", {}).get("content", {})]
    assert len(streams) == 6


@pytest.mark.parametrize(
    "segments",
    [
        [{"kind": "output", "variable": "a", "sampling": {"schema": {"not": 1}}}],
        [{"kind": "input", "variable": "../etc"}],
        [
            {"kind": "input", "variable": "tale", "transforms": [{"name": "explode"}]},
            {"kind": "output", "variable": "a"},
        ],
        [{"kind": "nonsense"}],
        [],
    ],
)
async def test_bad_requests_are_the_clients_fault_and_harm_nothing(served: Client, segments: list[Any]):
    client = await served()
    body = {"session": "s1", "variables": [{"id": "a"}], "requests": [{"id": "r", "segments": segments}]}
    answer = await client.post("/v1/submit", json=body)
    assert 400 <= answer.status_code < 500
    assert (await client.get("/v1/sessions/s1")).status_code == 404
    assert (await client.post("/v1/submit", json=program({"variable": "end"}))).status_code == 200


async def test_a_schema_that_nests_for_ever_is_refused(served: Client):
    client = await served()
    schema = '{"not":' * 400 + "{}" + "}" * 400
    body = json.dumps(program()).replace('"variable": "tale"}]', '"variable": "tale", "sampling": {"schema": @}}]', 1)
    answer = await client.post(
        "/v1/submit", content=body.replace("@", schema), headers={"content-type": "application/json"}
    )
    assert answer.status_code == 422
    assert code_of(answer) in {"invalid_schema", "invalid_request"}
