"""Writes the tables of docs/configuration.md from the settings themselves; with `--check`, only compares them."""

import sys
from pathlib import Path

from parrotserve.bench.marked import between_marks
from parrotserve.config import READ_ELSEWHERE, SETTINGS
from parrotserve.settings import Group, Setting

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "configuration.md"
BEGIN, END = "<!-- settings: begin (scripts/settings_table.py) -->", "<!-- settings: end -->"


def row(setting: Setting) -> str:
    default = setting.unset if setting.default in (None, ()) else f"`{setting.shown(setting.default)}`"
    return f"| `{setting.name}` | `{setting.variable}` | `{setting.flag}` | {default} | {setting.told} |"


def tables() -> str:
    lines: list[str] = []
    for group in Group:
        lines += [
            "",
            f"### {group}",
            "",
            "| in the file | variable | flag | default | means |",
            "|---|---|---|---|---|",
        ]
        lines += [row(setting) for setting in SETTINGS.values() if setting.group is group]
    lines += ["", "### Read elsewhere", "", "| variable | means |", "|---|---|"]
    lines += [f"| `{variable}` | {about} |" for variable, about in READ_ELSEWHERE.items()]
    return "\n".join(lines).strip() + "\n"


def page_with_list(page: str) -> str:
    return between_marks(page, BEGIN, END, tables())


def main() -> None:
    page = PAGE.read_text(encoding="utf-8")
    if "--check" not in sys.argv:
        PAGE.write_text(page_with_list(page), encoding="utf-8")
    elif page != page_with_list(page):
        sys.exit("docs/configuration.md is behind the code: run scripts/settings_table.py")


if __name__ == "__main__":
    main()
