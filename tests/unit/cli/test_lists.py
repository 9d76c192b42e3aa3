"""What commands that list things print: whole paths, and that there is nothing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from parrotserve.cli.app import app
from parrotserve.cli.sessions import _ago
from parrotserve.models.registry import list_models

Parrot = Callable[..., Result]


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_a_path_of_a_model_is_one_line_on_a_narrow_terminal(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    path = tmp_path / ("a folder of a long name " * 8) / "model.gguf"
    known = [dataclasses.replace(each, path=path) for each in list_models()]
    monkeypatch.setattr("parrotserve.models.registry.list_models", lambda: known)
    assert parrot("models").output.endswith(f"\nsmollm2-135m: {path}\n")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("usage", "There is no use yet."),
        ("tenant list", "parrot tenant create NAME"),
        ("key list", "parrot key create TENANT"),
        ("publish", "parrot publish FILE"),
    ],
)
def test_a_list_without_entries_says_so(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, said: str
):
    monkeypatch.setenv("PARROT_DATA", str(tmp_path))
    result = parrot(*command.split())
    assert (result.exit_code, result.stdout) == (0, "")
    assert said in result.stderr


def test_models_lists_what_is_known_and_whether_it_is_there(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PARROT_CACHE", str(tmp_path))
    header, row = parrot("models").output.splitlines()
    assert header.split() == ["name", "cached", "size", "what", "it", "is"]
    assert row.split()[:3] == ["smollm2-135m", "(default)", "no"]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-0.2, "0 s ago"), (119.4, "119 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (3e5, "3 days ago")],
)
def test_ages_of_sessions_are_short(seconds: float, told: str):
    assert _ago(seconds) == told


def test_usage_of_a_tenant_that_there_is_not(parrot: Parrot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PARROT_DATA", str(tmp_path))
    assert parrot("tenant", "create", "search").exit_code == 0
    assert parrot("usage", "search").exit_code == 0
    result = parrot("usage", "serach")
    assert result.exit_code == 1
    assert "There is no tenant 'serach'" in result.stderr
