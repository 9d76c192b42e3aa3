"""Pages that people write and programs fill in part, between two marks."""

from pathlib import Path

_END = "<!-- measured: end -->"


def between_marks(page: str, begin: str, end: str, markdown: str) -> str:
    """The page with `markdown` between its two marks instead of what is there; a page without marks ends with both."""
    before, _, rest = page.partition(begin)
    after = rest.partition(end)[2]
    return f"{before}{begin}\n\n{markdown}\n{end}{after}"


def write_marked(page: Path, script: str, markdown: str) -> None:
    """Between this script's two marks in the page; all of a page that is not there yet."""
    begin = f"<!-- measured: begin ({script} --report) -->"
    text = page.read_text(encoding="utf-8") if page.exists() else begin + _END
    page.write_text(between_marks(text, begin, _END, markdown), encoding="utf-8")
