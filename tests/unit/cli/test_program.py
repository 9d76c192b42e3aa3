"""Finding the file and the function that a command line names."""

import sys
from pathlib import Path

import pytest

from parrotserve.cli.program import UsageError, choose, load, split_target

PROGRAM = '''
import Parrot as P
from os.path import join

@P.SemanticFunction
def Ask(question):
    """{{input:question}} {{output:answer}}"""

@P.SemanticFunction
def Say():
    """Say it. {{output:word}}"""

@P.NativeFunction
def upper(text="a"):
    return text.upper()

class Helper: ...

def with_arguments(x): ...
def _private(): ...
'''


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    modules = dict(sys.modules)
    yield
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


@pytest.fixture
def program(tmp_path: Path):
    def write(text: str, name: str = "my_program.py") -> Path:
        path = tmp_path / name
        path.write_text(PROGRAM + text)
        return path

    return write


class TestTarget:
    """FILE[:FUNCTION]."""

    def test_a_file(self, program):
        path = program("")
        assert split_target(str(path)) == (path, None)

    def test_a_file_and_a_function(self, program):
        path = program("")
        assert split_target(f"{path}:main") == (path, "main")

    def test_a_missing_file_is_said_with_a_similar_one(self, program):
        path = program("")
        with pytest.raises(UsageError, match=r"There is no file .*my_progam\.py\. Did you mean .*my_program\.py\?"):
            split_target(str(path.with_name("my_progam.py")))

    def test_a_folder_is_no_program(self, tmp_path):
        with pytest.raises(UsageError, match="is a folder"):
            split_target(str(tmp_path))


class TestLoad:
    """The file as a module."""

    def test_it_is_not_main_and_can_import_its_neighbours(self, program, tmp_path):
        (tmp_path / "neighbour.py").write_text("WORD = 'hello'")
        module = load(program("from neighbour import WORD\nNAME = __name__"))
        assert (module.WORD, module.NAME) == ("hello", "my_program")

    def test_a_name_that_is_taken_does_not_replace_the_other_module(self, program):
        import json

        module = load(program("X = 1", name="json.py"))
        assert sys.modules["json"] is json
        assert module.X == 1


class TestChoose:
    """Which function is called."""

    def test_the_only_one_without_arguments(self, program):
        path = program("def main(): ...")
        assert choose(load(path), path, None).__name__ == "main"

    def test_defaults_do_not_count_as_arguments(self, program):
        path = program("def main(rounds=2, *more, **options): ...")
        assert choose(load(path), path, None).__name__ == "main"

    def test_none_is_said(self, program):
        path = program("")
        with pytest.raises(UsageError, match="no function that can be called without arguments"):
            choose(load(path), path, None)

    def test_several_are_listed(self, program):
        path = program("def one(): ...\nasync def two(): ...")
        with pytest.raises(UsageError, match=rf"several.*{path}:one, {path}:two"):
            choose(load(path), path, None)

    def test_a_named_one_may_be_any(self, program):
        path = program("def one(): ...\ndef two(): ...")
        module = load(path)
        assert choose(module, path, "two").__name__ == "two"
        assert choose(module, path, "Say") is module.Say

    def test_a_misspelt_name_is_corrected(self, program):
        path = program("def write_game(): ...")
        with pytest.raises(UsageError, match=r"no function write_gmae\. Did you mean write_game\?"):
            choose(load(path), path, "write_gmae")

    def test_an_unknown_name_lists_what_there_is(self, program):
        path = program("def write_game(): ...")
        with pytest.raises(UsageError, match=r"It defines: Ask, Say, upper, Helper, with_arguments"):
            choose(load(path), path, "zzz")

    def test_a_function_with_arguments_says_which(self, program):
        path = program("")
        with pytest.raises(UsageError, match="with_arguments needs x"):
            choose(load(path), path, "with_arguments")
        with pytest.raises(UsageError, match="Ask needs question"):
            choose(load(path), path, "Ask")
