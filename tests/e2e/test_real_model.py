"""Examples on the real model, as users run them."""

import re
import signal
from pathlib import Path

import psutil
import pytest
from processes import EXAMPLES, parrot, served, started

pytestmark = [pytest.mark.model, pytest.mark.timeout(400)]

QUICK = ("write_snake_game", "map_reduce_summary", "chatbot")
OTHERS = sorted({path.stem for path in EXAMPLES.glob("*.py")} - set(QUICK))


def example(name: str) -> Path:
    return EXAMPLES / f"{name}.py"


def shown(output: str) -> dict[str, str]:
    """The text of every variable that `parrot run` showed, by its title."""
    texts: dict[str, list[str]] = {}
    for title, line in re.findall(r"^([A-Za-z_.]+(?: #\d+)?) \|(?: (.*))?$", output, re.MULTILINE):
        texts.setdefault(title, []).append(line)
    return {title: "\n".join(lines) for title, lines in texts.items()}


def test_write_snake_game_writes_the_same_code_and_tests_embedded_and_served():
    here = parrot("run", example("write_snake_game"), timeout=180)
    assert here.returncode == 0, here.stderr
    texts = shown(here.stdout)
    assert texts.keys() == {"WritePythonCode.code", "WriteTestCode.test"}
    assert "def " in texts["WritePythonCode.code"]
    with served() as url:
        there = parrot("run", example("write_snake_game"), timeout=180, PARROT_URL=url)
    assert there.returncode == 0, there.stderr
    assert shown(there.stdout) == texts


def test_map_reduce_summary_combines_five_summaries():
    done = parrot("run", example("map_reduce_summary"), timeout=180)
    assert done.returncode == 0, done.stderr
    texts = shown(done.stdout)
    assert len(texts) == 6
    assert all(len(text.split()) > 5 for text in texts.values())
    assert len(set(texts.values())) == 6


def test_chatbot_goes_on_from_the_cache_of_the_turn_before():
    done = parrot("run", example("chatbot"), timeout=180)
    assert done.returncode == 0, done.stderr
    assert len(shown(done.stdout)) == 3
    read, cached = re.search(r"([\d,]+) tokens read \(([\d,]+) from the cache\)", done.stdout).groups()
    assert int(cached) > int(read) / 2


def test_ctrl_c_leaves_no_engine_behind():
    with started("run", example("write_snake_game")) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the model writes
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=30)
        _, alive = psutil.wait_procs(children, timeout=10)
    assert process.returncode == 130
    assert complaints == "Interrupted.\n"
    assert alive == []


@pytest.mark.long
@pytest.mark.parametrize("name", OTHERS)
def test_every_other_example_runs_within_a_minute_or_so(name: str):
    done = parrot("run", example(name), timeout=150)
    assert done.returncode == 0, done.stderr
    assert shown(done.stdout)
    assert "() returned" in done.stdout
