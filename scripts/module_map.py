"""Writes the module list of docs/architecture.md from the modules' docstrings; with `--check`, only compares it."""

import ast
import sys
from pathlib import Path

from parrotserve.bench.marked import between_marks

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- modules: begin (scripts/module_map.py) -->", "<!-- modules: end -->"


def first_sentence(module: Path) -> str:
    docstring = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n\n")[0].replace("\n", " ").strip()


def in_order(module: Path) -> tuple[Path, bool, str]:
    return module.parent, module.name != "__init__.py", module.name


def module_list() -> str:
    lines: list[str] = []
    for package in ("Parrot", "parrotserve"):
        for module in sorted((ROOT / "src" / package).rglob("*.py"), key=in_order):
            place = module.relative_to(ROOT / "src")
            if module.name == "__init__.py":
                lines += ["", f"**`{place.parent}/`**: {first_sentence(module)}", ""]
            else:
                lines.append(f"- `{place.name}`: {first_sentence(module)}")
    return "\n".join(lines).strip() + "\n"


def page_with_list(page: str) -> str:
    return between_marks(page, BEGIN, END, module_list())


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    if "--check" not in sys.argv:
        PAGE.write_text(page_with_list(page), encoding="utf-8")
    elif page != page_with_list(page):
        sys.exit("docs/architecture.md is behind the code: run scripts/module_map.py")


if __name__ == "__main__":
    main()
