"""What is measured has a name: of its source, or of its version where it is installed without."""

import re
import subprocess
from pathlib import Path

import pytest

from parrotserve import __version__
from parrotserve.bench import circumstances


def repository(project: Path) -> Path:
    """A checkout with one committed file; that file."""
    source = project / "src" / "parrotserve" / "bench" / "circumstances.py"
    source.parent.mkdir(parents=True)
    source.write_text("one = 1\n")
    identity = ("-c", "user.name=n", "-c", "user.email=n@example.com")
    for command in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "first")):
        subprocess.run(["git", *command], cwd=project, check=True)
    return source


def test_a_checkout_is_named_by_what_its_source_is_and_by_changes_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = repository(tmp_path)
    monkeypatch.setattr(circumstances, "_PROJECT", tmp_path)
    monkeypatch.setattr(circumstances, "__file__", str(source))
    committed = circumstances.source_version()
    assert re.fullmatch(r"[0-9a-f]{12}", committed)
    (tmp_path / "notes").write_text("of no matter")
    assert circumstances.source_version() == committed
    source.write_text("one = 2\n")
    assert re.fullmatch(rf"{committed}\+[0-9a-f]{{8}}", circumstances.source_version())


def test_what_is_installed_is_named_by_its_version_whatever_repository_is_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    repository(tmp_path)
    monkeypatch.setattr(circumstances, "_PROJECT", tmp_path)
    monkeypatch.setattr(circumstances, "__file__", str(tmp_path / "lib" / "parrotserve" / "bench" / "circumstances.py"))
    assert circumstances.source_version() == __version__
