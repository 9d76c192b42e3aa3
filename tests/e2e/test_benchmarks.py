"""The benchmarks under `benchmarks/`, as they are run: small, on a model without meaning, without peers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_model import write_tiny_model

from parrotserve.engines.native.kernels import variants

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def run(script: str, *arguments: str, peers: Path, codes: tuple[int, ...] = (0,)) -> Any:
    """What a benchmark wrote, which ended with one of these codes."""
    target = peers / "result.json"
    ran = subprocess.run(
        [sys.executable, BENCHMARKS / script, *arguments, "--json", target],
        env={**os.environ, "PARROT_PEERS": str(peers)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert ran.returncode in codes, ran.stderr
    return json.loads(target.read_text())


def test_the_engine_is_measured_through_its_process(tmp_path: Path):
    model = tmp_path / "tiny"
    model.mkdir()
    write_tiny_model(model)
    sizes = ["--model", str(model), "--threads", "1", "--rounds", "2", "--steps", "2", "--weights", "bf16"]
    points = run("engine.py", *sizes, "--points", "48", "1x32", "3x64", peers=tmp_path)["points"]
    assert set(points) == {"prefill 48", "decode 1x32", "decode 3x64"}
    assert all(len(point["milliseconds"]["bf16"]) == 2 for point in points.values())
    assert ("bf16 private" in points["decode 3x64"]["milliseconds"]) == bool(variants())

    again = run("engine.py", *sizes, "--points", "48", "96", peers=tmp_path)["points"]
    assert again["prefill 48"] == points["prefill 48"], "what is there is not measured again"
    assert set(again) == {*points, "prefill 96"}

    page = tmp_path / "page.md"
    page.write_text("Before.\n<!-- measured: begin (benchmarks/engine.py --report) --><!-- measured: end -->\nAfter.\n")
    run("engine.py", "--report", str(page), peers=tmp_path)
    assert "| decode 3x64 |" in page.read_text()
    assert page.read_text().startswith("Before.")
    assert page.read_text().endswith("After.\n")


@pytest.mark.skipif(not variants(), reason="the compiled extension is not installed here")
def test_steps_of_the_kernels_are_measured(tmp_path: Path):
    model = tmp_path / "tiny"
    model.mkdir()
    write_tiny_model(model)
    sizes = ["--prefills", "48", "--batches", "1", "3", "--prefixes", "32", "--repeat", "2", "--kv-gib", "0.01"]
    result = run("steps.py", "--model", str(model), "--threads", "1", *sizes, peers=tmp_path)
    assert {step["step"]: len(step["milliseconds"]) for step in result["steps"]} == {
        "prefill 48": 2,
        "batch 1, prefix 32, grouped": 2,
        "batch 3, prefix 32, grouped": 2,
        "batch 3, prefix 32, ungrouped": 2,
        "batch 3, prefix 32, private": 2,
    }


def test_what_parrot_costs_a_request_is_measured(tmp_path: Path):
    sizes = ["--count", "80", "--seconds", "0.2", "--rate", "50", "--rounds", "2", "--most-waiting", "100"]
    points = run("overhead.py", *sizes, "machine", "handle-16", peers=tmp_path)["points"]
    assert set(points) == {"machine", "handle-16"}
    assert points["handle-16"]["microseconds"].keys() == {"10", "100"}

    everything = run("overhead.py", *sizes, peers=tmp_path)["points"]
    assert everything["machine"] == points["machine"], "what is there is not measured again"
    assert set(everything) == {"machine", "runtime", "http", "added", "handle-1", "handle-16", "handle-256", "lookup"}
    assert all(len(rates) == 2 for rates in everything["http"]["a_second"].values())
    assert everything["added"]["milliseconds"].keys() == {"parrot", "no journal", "echo"}
    assert everything["lookup"]["microseconds"].keys() == {"1", "16", "256"}

    page = tmp_path / "page.md"
    run("overhead.py", "--report", str(page), peers=tmp_path)
    for row in ("through the machine alone", "the bare echo", "| added |", "| 256 | 100 |", "| 256 |"):
        assert row in page.read_text()


def test_a_point_that_there_is_not_is_named(tmp_path: Path):
    ran = subprocess.run(
        [sys.executable, BENCHMARKS / "overhead.py", "handle-3"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 2
    assert "no point handle-3" in ran.stderr
    assert "handle-16" in ran.stderr


def test_what_tenants_do_to_one_another_is_measured(tmp_path: Path):
    """Whatever the figures are: on a model that takes no time, in half a second, they mean nothing."""
    sizes = ["--model", "fake", "--open", "2", "--tokens", "2", "--seconds", "0.5", "--pairs", "1"]
    result = run("fairness.py", *sizes, peers=tmp_path, codes=(0, 1))
    (measured,) = result
    assert [point["part"] for point in measured["points"]] == ["latency", "work", "sessions", "weights"]
    assert all(point["ratio"] > 0 for point in measured["points"])


def test_a_run_in_which_nobody_was_served_says_so(tmp_path: Path):
    ran = subprocess.run(
        [sys.executable, BENCHMARKS / "fairness.py", "--model", "fake", "--seconds", "0", "--pairs", "1"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 1
    assert "No request of ann ended" in ran.stderr
    assert "Traceback" not in ran.stderr
