"""Bad input on the command line."""

import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from bad_input import PARROT
from typer.testing import CliRunner

from parrotserve.cli.app import app

PROGRAM = """
import Parrot as P

@P.SemanticFunction(max_tokens=8)
def Echo(text):
    '''Say: {{input:text}} {{output:said}}'''

@P.NativeFunction
def Divide(text):
    return 1 / 0

def wait():
    print("waiting:", Echo("x").get(), flush=True)
    return Echo(P.SemanticVariable(name="never")).get()

def divide():
    return Echo(Divide("x"))

def crash():
    return {}["key"]

def misdeclare():
    @P.SemanticFunction
    def Wrong(text):
        '''{{input:txt}} {{output:said}}'''
"""


class TestCommands:
    @pytest.fixture
    def program(self, tmp_path: Path) -> Path:
        (tmp_path / "program.py").write_text(PROGRAM)
        (tmp_path / "broken.py").write_text("def main(:\n    pass\n")
        return tmp_path / "program.py"

    @pytest.mark.parametrize(
        ("arguments", "code", "told"),
        [
            ("run {folder}/program.py:misdeclare --model fake", 1, "did you mean 'text'?"),
            ("run {folder}/program.py:divide --model gpt-9", 1, "There is no model 'gpt-9'"),
            ("run {folder}/program.py:divide --url http://127.0.0.1:9", 1, "parrot serve"),
            ("run {folder}/program.py:divide --url 127.0.0.1:9", 1, "write http://127.0.0.1:9"),
            ("run {folder}/program.py:wiat", 2, "no function wiat"),
            ("run {folder}/progam.py", 2, "program.py"),
            ("run {folder}", 2, "is a folder"),
            ("runn {folder}/program.py", 2, "Did you mean 'run'?"),
            ("serve --model gpt-9", 1, "There is no model 'gpt-9'"),
            ("serve --port 70000", 2, "port must be between"),
        ],
    )
    def test_errors_are_told_in_words(self, program: Path, arguments: str, code: int, told: str):
        done = CliRunner().invoke(app, arguments.format(folder=program.parent).split())
        assert done.exit_code == code
        assert told in " ".join(done.stderr.replace("│", " ").split())
        assert "Traceback" not in done.output

    @pytest.mark.parametrize(
        ("name", "line"),
        [("program.py:crash", '{}["key"]'), ("program.py:divide", "return 1 / 0"), ("broken.py", "def main(:")],
    )
    def test_errors_of_a_program_are_shown_from_the_program_on(self, program: Path, name: str, line: str):
        arguments = (*PARROT, "run", f"{program.parent}/{name}", "--model", "fake")
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert line in done.stderr
        assert "parrotserve" not in done.stderr

    def test_what_a_function_of_the_program_led_to_is_told_too(self, program: Path):
        done = CliRunner().invoke(app, ["run", f"{program}:divide", "--model", "fake"])
        assert done.exit_code == 1
        assert "'Echo'" in done.stderr
        assert "Divide raised ZeroDivisionError" in done.stderr

    def test_ctrl_c_in_a_blocking_get(self, program: Path, tiny: Path):
        arguments = (*PARROT, "run", f"{program}:wait", "--model", str(tiny))
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any(line.startswith("waiting: ") for line in process.stdout)
            engines = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert errors.strip() == "Interrupted."
        assert engines
        assert psutil.wait_procs(engines, timeout=10)[1] == []
