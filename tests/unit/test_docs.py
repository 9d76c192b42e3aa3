"""What the documents say of the code is true of it."""

import ast
import re
import runpy
from pathlib import Path

import pytest

from parrotserve.config import READ_ELSEWHERE, SETTINGS

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])


def names_in_source() -> set[str]:
    """Every class, function, method (`Class.method`) and module attribute name that src defines."""
    names: set[str] = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                names.add(node.name)
                names |= {
                    f"{node.name}.{member.name}"
                    for member in node.body
                    if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
                }
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names.add(node.name)
    return names


def test_the_journey_names_functions_that_exist():
    page = (ROOT / "docs" / "journey.md").read_text(encoding="utf-8")
    mentioned = set(re.findall(r"`([A-Z]\w+(?:\.\w+)?|[a-z_]+(?=`))`?", page))
    of_the_program = {"WritePythonCode", "WriteTestCode", "WriteSnakeGame", "code", "task"}
    unknown = mentioned - names_in_source() - of_the_program
    assert len(mentioned) > 25
    assert not unknown


@pytest.mark.parametrize("script", ["module_map", "settings_table"])
def test_what_scripts_write_into_documents_is_up_to_date(script: str):
    written = runpy.run_path(str(ROOT / "scripts" / f"{script}.py"))
    page = written["PAGE"].read_text(encoding="utf-8")
    assert page == written["page_with_list"](page), f"run scripts/{script}.py"


def test_the_guide_to_the_native_engine_names_all_of_its_modules_and_no_other():
    folder = ROOT / "src" / "parrotserve" / "engines" / "native"
    guide = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    named = {name.partition(".")[0] for name in re.findall(r"`([\w.]+)`", guide)}
    assert named == {path.stem for path in folder.glob("*.py")} - {"__init__"}


def test_operators_are_told_of_what_there_is():
    page, http = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("operations.md", "http.md"))
    metrics = set(re.findall(r"\bparrot_[a-z_]+", page))
    assert len(metrics) > 3
    assert metrics <= set(re.findall(r"`(parrot_[a-z_]+)`", http))
    variables = set(re.findall(r"\bPARROT_[A-Z_]+", page))
    assert len(variables) > 2
    assert variables <= {setting.variable for setting in SETTINGS.values()} | READ_ELSEWHERE.keys()


@pytest.mark.parametrize("page", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path):
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
