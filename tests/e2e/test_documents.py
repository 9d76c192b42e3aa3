"""What the documents say is so: their programs run, their commands work, their links lead somewhere."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from httpx_sse import connect_sse
from processes import EXAMPLES, ROOT, environment, parrot, served

from parrotserve.errors import ParrotError

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks(document: Path, language: str) -> list[str]:
    """The contents of its fenced blocks in this language, in order."""
    return [text for found, text in BLOCK.findall(document.read_text("utf-8")) if found == language]


def run_python(folder: Path, *pieces: str) -> str:
    """Run as one program, without a model; its output."""
    program = folder / "program.py"
    program.write_text("\n".join(pieces), "utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        capture_output=True,
        text=True,
        timeout=100,
        env=environment(PARROT_MODELS="fake"),
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    """Of a running service."""
    with served("--model", "fake") as url, httpx.Client(base_url=url) as client:
        yield client


class TestReadme:
    """The front page."""

    README = ROOT / "README.md"
    FIRST, CLIENT, *TOUR, SNAKE = blocks(README, "python")

    def test_it_shows_the_program_as_it_is(self):
        assert (EXAMPLES / "write_snake_game.py").read_text("utf-8") == self.SNAKE

    def test_the_program_runs_as_shown(self, tmp_path: Path):
        program = tmp_path / "program.py"
        program.write_text(self.SNAKE)
        done = parrot("run", program, "--model", "fake")
        assert done.returncode == 0
        assert "WriteSnakeGame() returned" in done.stdout

    def test_the_first_program_runs_as_shown(self, tmp_path: Path):
        assert run_python(tmp_path, self.FIRST).strip()

    def test_the_tour_runs_from_top_to_bottom(self, tmp_path: Path):
        output = run_python(tmp_path, *self.TOUR)
        assert "it walks" in output or "up it goes" in output

    def test_the_program_of_another_client_runs_as_shown(self, tmp_path: Path, client: httpx.Client):
        assert "http://127.0.0.1:8000/v1" in self.CLIENT
        program = self.CLIENT.replace("http://127.0.0.1:8000/v1", str(client.base_url.join("/v1")))
        assert run_python(tmp_path, program).strip()

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


def test_the_guide_runs_from_top_to_bottom(tmp_path: Path):
    output = run_python(tmp_path, *blocks(ROOT / "docs" / "guide.md", "python"))
    assert "there is no parameter 'tusk'" in output
    assert "out of seeds" in output
    assert "Starlark has no while" in output
    assert "flowchart TD" in output


class TestHttp:
    """The page on the HTTP interface, against a running service."""

    PAGE = ROOT / "docs" / "http.md"

    def test_the_program_is_answered_as_shown(self, client: httpx.Client):
        body = json.loads(blocks(self.PAGE, "json")[0])
        with connect_sse(client, "POST", "/v1/submit", json=body) as source:
            events = [json.loads(event.data) for event in source.iter_sse()]
        shown = [json.loads(line[6:]) for line in blocks(self.PAGE, "")[0].splitlines() if line.startswith("data: ")]
        assert [event["event"] for event in events if event["event"] != "delta"] == ["accepted", "value", "value"]
        for example in shown:
            assert any(
                event.keys() == example.keys() and event.get("variable") == example.get("variable") for event in events
            )

    def test_a_broken_stream_goes_on_as_shown(self, client: httpx.Client):
        client.post("/v1/submit", json=json.loads(blocks(self.PAGE, "json")[0]))
        answer = client.get("/v1/sessions/s-1/variables/v-test/stream", headers={"Last-Event-ID": "5"})
        assert answer.text.strip() == blocks(self.PAGE, "text")[0].strip()

    def test_the_error_is_as_shown(self, client: httpx.Client):
        assert client.get("/v1/sessions/nope").json() == json.loads(blocks(self.PAGE, "json")[2])

    def test_sessions_are_listed_as_shown(self, client: httpx.Client):
        client.post("/v1/submit", json=json.loads(blocks(self.PAGE, "json")[0]))
        told, shown = client.get("/v1/sessions").json(), json.loads(blocks(self.PAGE, "json")[1])
        assert told.keys() == shown.keys()
        assert told["data"][0].keys() == shown["data"][0].keys()
        assert {name: type(value) for name, value in told["data"][0].items()} == {
            name: type(value) for name, value in shown["data"][0].items()
        }

    def test_every_route_is_listed_and_every_listed_route_is_there(self, client: httpx.Client):
        paths = client.get("/openapi.json").json()["paths"]
        routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
        text = self.PAGE.read_text("utf-8")
        listed = set(re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`?]*)`", text)) - {"GET /docs", "GET /openapi.json"}
        assert listed == routes
        assert client.get("/docs").is_success

    def test_its_codes_are_codes(self):
        table = self.PAGE.read_text("utf-8").split("| status | codes")[1]
        codes = set(re.findall(r"`([a-z_]+)`", table)) - {"failure", "error"}
        of_http = {"invalid_request", "method_not_allowed", "unsupported_media_type"}
        assert codes - set(ParrotError.by_code) == of_http

    def test_every_code_is_listed_with_its_status(self):
        rows = dict(re.findall(r"^\| (\d{3}) \| (.*) \|$", self.PAGE.read_text("utf-8"), re.MULTILINE))
        missing = [code for code, kind in ParrotError.by_code.items() if f"`{code}`" not in rows[str(kind.status)]]
        assert not missing


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
