"""`parrot` as users start it: a process with its streams, signals and exit code."""

import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from processes import EXAMPLES, PARROT, environment, parrot, served, started, terminal

HEAVY = {"asyncio", "fastapi", "gguf", "httpx", "numpy", "pydantic", "tokenizers", "uvicorn"}


def test_help_and_typos_do_not_wait_for_heavy_imports():
    code = f"import sys, parrotserve.cli.app; print(*sorted({HEAVY} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert found == []


@pytest.mark.parametrize("module", ["parrotserve.cli.app", "typer.main", "parrotserve.errors"])
def test_ctrl_c_while_the_command_is_loaded_leaves_no_traceback(module: str):
    code = (
        "import sys\n"
        "class Interrupted:\n"
        "    def find_spec(self, name, path, target=None):\n"
        f"        if name == {module!r}: raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupted())\n"
        "from parrotserve.cli.main import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_ctrl_c_before_a_command_begins_leaves_no_traceback():
    code = (
        "from parrotserve.cli import app, main\n"
        "def interrupted(*_): raise KeyboardInterrupt\n"
        "app.app = interrupted\n"
        "main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize(
    ("options", "begin"), [((), "said 🦜\nmain() returned: 'naïve 🦜'\n"), (("-q",), "said 🦜\nnaïve 🦜\n")]
)
def test_characters_that_the_terminal_does_not_have_are_replaced(tmp_path: Path, options: tuple[str, ...], begin: str):
    program = tmp_path / "colourful.py"
    program.write_text("def main():\n    print('said 🦜')\n    return 'naïve 🦜'\n", encoding="utf-8")
    command = [*PARROT, "run", program, "--model", "fake", *options]
    done = subprocess.run(command, capture_output=True, env=environment(PYTHONIOENCODING="latin-1"), timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode("latin-1").startswith(begin.replace("🦜", "?"))


def test_run_shows_outputs_in_a_pipe():
    done = parrot("run", EXAMPLES / "write_snake_game.py", "--model", "fake")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    *outputs, returned, figures = done.stdout.splitlines()
    assert [line.partition(" |")[0] for line in outputs] == ["WritePythonCode.code", "WriteTestCode.test"]
    assert returned.startswith("WriteSnakeGame() returned: (")
    assert figures.startswith("2 requests, ")


def test_ctrl_c_in_a_blocking_get_ends_it_cleanly(tmp_path):
    program = tmp_path / "waits.py"
    program.write_text(
        "import threading\nimport Parrot as P\n"
        "@P.NativeFunction\ndef never(x):\n    print('waiting', flush=True)\n    threading.Event().wait()\n"
        "def main():\n    return never(P.SemanticVariable('x')).get()\n"
    )
    with started("run", program, "--model", "fake") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waiting\n"
        process.send_signal(signal.SIGINT)
        rest, complaints = process.communicate(timeout=30)
    assert process.returncode == 130
    assert rest == ""
    assert complaints == "Interrupted.\n"


def test_a_reader_that_leaves_early_is_no_error():
    with started("run", EXAMPLES / "game_team.py", "--model", "fake") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.wait(30)
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk to write to here")
@pytest.mark.parametrize("command", [("run", EXAMPLES / "hello.py", "--model", "fake"), ("version",)])
def test_a_full_disk_is_said_in_one_line(command: tuple[object, ...]):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PARROT, *map(str, command)], stdout=full, stderr=subprocess.PIPE, text=True, env=environment(), timeout=60
        )
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device.\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_ends_cleanly_on_a_signal(number: signal.Signals):
    with started("serve", "--port", "0", "--model", "fake") as process:
        assert process.stderr is not None
        assert "Parrot serves fake at http://127.0.0.1:" in process.stderr.readline()
        process.send_signal(number)
        _, complaints = process.communicate(timeout=30)
    assert process.returncode == 0
    assert complaints == ""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_serve_says_on_a_terminal_that_it_is_loading():
    with terminal("serve", "--port", "0", "--model", "fake") as (process, screen):
        screen.until("Parrot is loading fake for http://127.0.0.1:", "Parrot serves fake at http://127.0.0.1:")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_metrics_tell_nothing_of_when_they_began():
    with served("--model", "fake") as url:
        told = httpx.get(f"{url}/metrics").text
    assert "parrot_sessions 0.0" in told
    assert "_created" not in told


def test_a_second_service_on_the_same_port_is_refused_in_one_line():
    with served("--model", "fake") as url:
        port = url.rpartition(":")[2]
        done = parrot("serve", "--port", port, "--model", "fake")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"Port {port}" in line
    assert "--port" in line


@pytest.mark.parametrize("name", ["write_snake_game", "question_answering"])
def test_a_program_gives_the_same_text_embedded_and_served(name: str):
    arguments = ("run", "--quiet", EXAMPLES / f"{name}.py")
    with served("--model", "fake") as url:
        there = parrot(*arguments, PARROT_URL=url)
        while httpx.get(f"{url}/v1/engines").json()[0]["running"]:
            pass  # until the engine's next heartbeat says that nothing is left
    here = parrot(*arguments, PARROT_MODELS="fake")
    assert (there.returncode, there.stderr) == (0, "")
    assert there.stdout
    assert there.stdout == here.stdout


def test_chat_talks_to_a_service():
    with served("--model", "fake") as url:
        command, lines = [*PARROT, "chat", "--url", url], "Hello\nAgain\n"
        done = subprocess.run(command, input=lines, capture_output=True, text=True, env=environment(), timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_ctrl_c_at_the_prompt_of_a_chat_says_how_to_leave_and_goes_on():
    with terminal("chat", "--model", "fake") as (process, screen):
        screen.until("> ")
        process.send_signal(signal.SIGINT)
        screen.until("/exit or Ctrl-D leaves.", "> ")
        screen.type("Hello")
        screen.until("Hello", ".", "> ")
        screen.type("/exit")
        assert process.wait(30) == 0
