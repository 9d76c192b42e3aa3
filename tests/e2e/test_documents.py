"""What the documents say is so: their programs run, their commands work, their links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from processes import EXAMPLES, ROOT, environment, parrot, served

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(document: Path, language: str) -> list[str]:
    """The contents of its fenced blocks in this language, in order."""
    return [text for found, text in BLOCK.findall(document.read_text("utf-8")) if found == language]


def run_python(*pieces: str) -> str:
    """Run as one program, without a model; its output."""
    program = "\n".join(pieces)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-"],
        input=program,
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(PARROT_MODELS="fake"),
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


class TestReadme:
    """The front page."""

    README = ROOT / "README.md"

    def test_it_shows_the_program_as_it_is(self):
        assert blocks(self.README, "python")[0] == (EXAMPLES / "write_snake_game.py").read_text("utf-8")

    def test_the_program_runs_as_shown(self, tmp_path: Path):
        program = tmp_path / "program.py"
        program.write_text(blocks(self.README, "python")[0])
        done = parrot("run", program, "--model", "fake")
        assert done.returncode == 0
        assert "WriteSnakeGame() returned" in done.stdout

    def test_the_tour_runs_from_top_to_bottom(self):
        # Templates are read from source files, so the pieces are one file.
        output = run_python(*blocks(self.README, "python")[1:])
        assert "it walks" in output or "up it goes" in output

    def test_its_commands_are_there(self):
        targets = (ROOT / "Makefile").read_text("utf-8")
        commands = [line for text in blocks(self.README, "") for line in text.splitlines()]
        assert commands
        for line in commands:
            words = shlex.split(line, comments=True)
            settings = [word for word in words if "=" in word]
            words = words[len(settings) :]
            if words[0] == "make":
                assert re.search(rf"^{words[1]}:", targets, re.MULTILINE), line
            else:
                assert parrot(words[1], "--help").returncode == 0, line

    def test_a_served_program_runs_as_shown(self):
        with served("--model", "fake") as url:
            assert parrot("run", EXAMPLES / "hello.py", PARROT_URL=url).returncode == 0

    def test_it_counts_the_examples(self):
        numbers = {11: "eleven", 12: "twelve"}
        count = numbers[len(list(EXAMPLES.glob("*.py")))]
        assert f"has {count} short programs" in self.README.read_text("utf-8")


def test_the_guide_runs_from_top_to_bottom():
    output = run_python(*blocks(ROOT / "docs" / "guide.md", "python"))
    assert "there is no parameter 'tusk'" in output
    assert "out of seeds" in output
    assert "flowchart TD" in output


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_within_the_project_lead_somewhere(document: Path):
    text = BLOCK.sub("", document.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (document.parent / path).resolve() if path else document
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}
