"""`parrot bench` as a user runs it, on a model without weights."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from parrotserve.bench.served import served
from parrotserve.bench.sides import PEERS
from parrotserve.bench.workloads import WORKLOADS
from parrotserve.cli.app import app

PAGE = Path(__file__).resolve().parents[2] / "benchmarks" / "page.py"
QUICK = ["--quick", "--model", "fake", "--delay", "0"]


def test_every_workload_runs_on_parrot_and_on_a_client_program(tmp_path: Path):
    arguments = ["bench", "all", *QUICK, "--sides", "on,capped", "--into", str(tmp_path)]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    for name, workload in WORKLOADS.items():
        result = json.loads((tmp_path / f"{name}.json").read_text())
        assert [each["errors"] for each in result["results"]] == [{}] * (2 * len(workload.quick)), name
        assert all(set(workload.headline) <= set(each["rounds"]["0"]) for each in result["results"])
        assert all("--model fake" in each["made"]["0"]["options"] for each in result["results"])
    subprocess.run([sys.executable, PAGE, tmp_path], check=True, timeout=60)
    page = (tmp_path / "workloads.md").read_text()
    assert page.count("Trials by source: ") == len(WORKLOADS)
    for name, workload in WORKLOADS.items():
        assert f"## {name}" in page
        assert all(f"| {case.name} | 0 ms | {side} |" in page for case in workload.quick for side in ("on", "capped"))


def test_help_names_every_workload():
    told = " ".join(CliRunner().invoke(app, ["bench", "--help"]).stdout.replace("│", " ").split())
    assert f"{', '.join(WORKLOADS)}, or all." in told


def test_help_names_every_side_whole_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", "80")
    told = CliRunner().invoke(app, ["bench", "--help"]).stdout.replace("│", " ").split()
    sides = "on, off, capped, throughput, chat priority, chats alone, without prefix"
    assert sides in " ".join(told)
    assert all(f"{peer}," in told or f"{peer}." in told for peer in PEERS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["chian"], "there are: chain, map-reduce"),
        (["chain", "--sides", "on,valley"], "there are: on, off"),
        (["chain", "--sides", "on,vllm"], "name it by --vllm URL"),
        (["chain", "--sides", "on,vllm", "--vllm", "http://127.0.0.1:9,x"], "http://127.0.0.1:9,x"),
        (["chain", "--sides", "on,vllm", "--vllm", "127.0.0.1:9"], "--vllm 127.0.0.1:9: write a whole URL"),
        (["chain", "--resume"], "--into FOLDER"),
        (["chain", "--case", "25 chians"], "No case of chain has such a name; there are: '"),
    ],
)
def test_what_does_not_exist_is_said_with_what_does(arguments: list[str], said: str):
    ran = CliRunner().invoke(app, ["bench", *arguments, *QUICK])
    assert ran.exit_code == 2
    assert said in " ".join(ran.stderr.split())


def test_a_peer_that_is_not_there_is_a_failed_row_and_told_by_the_exit_code():
    arguments = ["--sides", "on,vllm", "--vllm", "http://127.0.0.1:9", "--case", "3 x 128"]
    ran = CliRunner().invoke(app, ["bench", "chain", *QUICK, *arguments])
    assert ran.exit_code == 1
    assert "vllm: every trial failed." in ran.stderr
    assert "failed" in ran.stdout
    assert "http://127.0.0.1:9" in ran.stderr


async def test_a_service_is_served_with_its_options_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "config.toml"
    file.write_text("max_lease_seconds = 9\n")
    for name, text in {"PARROT_CONFIG": str(file), "PARROT_MAX_LEASE_SECONDS": "7", "PARROT_PEERS": "/peers"}.items():
        monkeypatch.setenv(name, text)
    async with served(("--model", "fake")) as url, httpx.AsyncClient(base_url=url) as client:
        await client.post("/v1/submit", json={"session": "s-1", "lease_seconds": 30, "variables": [{"id": "v"}]})
        assert (await client.get("/v1/sessions/s-1")).json()["lease_seconds"] == 30
