"""The project's conventions, as tests: what CONTRIBUTING.md asks for and a linter does not know."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"
PYTHON_FILES = sorted(SRC.rglob("*.py"))
CPP_FILES = sorted(path for path in (SRC / "kernels").rglob("*") if path.suffix in {".cpp", ".hpp"})

MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

# Where a class may go without a docstring if all it has is fields, and why.
SELF_EXPLANATORY = {
    "parrotserve/errors.py": "the tree in the module's docstring says what each error means",
    "parrotserve/protocol.py": "wire models: the names are the vocabulary, the fields their documentation",
    "parrotserve/graph/events.py": "events: the name says what happened, the fields to what",
    "parrotserve/graph/decisions.py": "decisions: the name says what to do, the fields to what",
    "parrotserve/engines/base.py": "commands and events: the same",
}


def name_of(path: Path) -> str:
    return path.relative_to(SRC).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def is_public(name: str) -> bool:
    return not name.startswith("_")


def is_overload(node: ast.AST) -> bool:
    decorators = getattr(node, "decorator_list", [])
    return any(ast.unparse(decorator).endswith("overload") for decorator in decorators)


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, FUNCTION))


def test_the_rules_see_the_source():
    assert {"parrotserve/errors.py", "Parrot/__init__.py"} <= {name_of(path) for path in PYTHON_FILES}
    assert CPP_FILES


def test_no_package_is_called_parrot():
    # On macOS and Windows it would be the same folder as `Parrot`.
    folders = {name for _, names, _ in os.walk(SRC) for name in names}
    files = {path.stem for path in SRC.glob("*.py")}
    assert "parrot" not in folders | files


def test_parrot_leaves_the_name_of_its_submodule_alone():
    # `import Parrot.PerformanceCriteria` binds that name in `Parrot` to the module, over anything exported.
    tree = parse(SRC / "Parrot" / "__init__.py")
    bound = {alias.asname or alias.name for node in ast.walk(tree) for alias in getattr(node, "names", [])
             if isinstance(node, (ast.Import, ast.ImportFrom))}  # fmt: skip
    bound |= {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    bound |= {node.name for node in ast.walk(tree) if isinstance(node, (ast.ClassDef, *FUNCTION))}
    exported = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    assert "PerformanceCriteria" not in bound | exported


def test_the_public_face_only_re_exports():
    for path in (SRC / "Parrot").rglob("*.py"):
        defined = [node.name for node in ast.walk(parse(path)) if isinstance(node, (ast.ClassDef, *FUNCTION))]
        assert defined in ([], ["__getattr__"], ["__getattr__", "__dir__"]), name_of(path)


@pytest.mark.parametrize("package", ["Parrot", "parrotserve"])
def test_type_checkers_are_told_that_packages_are_annotated(package: str):
    assert (SRC / package / "py.typed").exists()


@pytest.mark.parametrize("path", [*PYTHON_FILES, *CPP_FILES], ids=name_of)
def test_files_stay_small(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_FILE_LINES, f"{lines} lines: a file that needs a table of contents is two files"


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_functions_fit_a_screen(path: Path):
    sizes = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions(parse(path))}
    assert {name: size for name, size in sizes.items() if size > MAX_FUNCTION_LINES} == {}


def is_self_explanatory(path: Path, node: ast.AST) -> bool:
    data = (ast.AnnAssign, ast.Assign, ast.Expr)
    return (
        name_of(path) in SELF_EXPLANATORY
        and isinstance(node, ast.ClassDef)
        and all(isinstance(statement, data) for statement in node.body)
    )


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_public_modules_classes_and_functions_say_what_they_are(path: Path):
    tree = parse(path)
    missing = [] if ast.get_docstring(tree) else ["the module"]
    missing += [
        f"{node.name} (line {node.lineno})"
        for node in tree.body
        if isinstance(node, (ast.ClassDef, *FUNCTION))
        and is_public(node.name)
        and not is_overload(node)
        and not is_self_explanatory(path, node)
        and not ast.get_docstring(node)
    ]
    assert missing == [], f"no docstring: {', '.join(missing)}"


def test_every_exemption_is_for_a_file_that_exists():
    assert set(SELF_EXPLANATORY) <= {name_of(path) for path in PYTHON_FILES}


@pytest.mark.parametrize("path", [*PYTHON_FILES, *CPP_FILES], ids=name_of)
def test_nothing_is_left_unfinished(path: Path):
    unfinished = re.findall(r"\b(?:TODO|FIXME|XXX|HACK|raise NotImplementedError)\b", path.read_text("utf-8"))
    assert unfinished == []


def drawn_parents(docstring: str) -> dict[str, str]:
    """class -> parent, from lines such as `    │   ├── TemplateError      a docstring template`."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in docstring.splitlines():
        if match := re.match(r"^ {4}((?:│   |    )*(?:├── |└── )?)([A-Z]\w+)", line):
            depth = len(match[1]) // 4
            parents[match[2]] = path[depth - 1] if depth else "Exception"
            path[depth:] = [match[2]]
    return parents


def test_the_tree_drawn_in_errors_is_the_tree_of_its_classes():
    module = parse(SRC / "parrotserve" / "errors.py")
    actual = {
        node.name: ast.unparse(node.bases[0])
        for node in module.body
        if isinstance(node, ast.ClassDef) and is_public(node.name)
    }
    assert drawn_parents(ast.get_docstring(module, clean=False) or "") == actual


@pytest.mark.parametrize("path", PYTHON_FILES, ids=name_of)
def test_no_public_exception_grows_outside_that_tree(path: Path):
    strays = [
        node.name
        for node in ast.walk(parse(path))
        if isinstance(node, ast.ClassDef)
        and is_public(node.name)
        and name_of(path) != "parrotserve/errors.py"
        and any(re.search(r"(Error|Exception|Warning)$", ast.unparse(base)) for base in node.bases)
    ]
    assert strays == []
