"""Pages that people write, with a part that programs fill in."""

from pathlib import Path

_END = "<!-- measured: end -->"


def write_marked(page: Path, script: str, markdown: str) -> None:
    """Write `markdown` between this script's two marks in the page, which is created if it does not exist."""
    begin = f"<!-- measured: begin ({script} --report) -->"
    text = page.read_text(encoding="utf-8") if page.exists() else begin + _END
    before, _, rest = text.partition(begin)
    after = rest.partition(_END)[2]
    page.write_text(f"{before}{begin}\n\n{markdown}\n{_END}{after}", encoding="utf-8")
