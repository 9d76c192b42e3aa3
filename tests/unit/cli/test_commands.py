"""The command line itself, on a service without a model: what commands print, and how they refuse."""

import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import platformdirs
import pytest
import typer
from typer.testing import CliRunner, Result

from parrotserve import __version__
from parrotserve.cli.app import app
from parrotserve.cli.console import guarded
from parrotserve.config import SETTINGS
from parrotserve.errors import ServiceUnavailable
from parrotserve.sdk.variable import SemanticVariable

PRELUDE = """
import Parrot as P

@P.SemanticFunction
def Say(x):
    '''{{input:x}} {{output:y}}'''
"""

Parrot = Callable[..., Result]


@pytest.fixture
def parrot(monkeypatch: pytest.MonkeyPatch) -> Parrot:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    # Wide enough that no message is folded.
    monkeypatch.setenv("COLUMNS", "500")
    monkeypatch.setenv("TERM", "dumb")
    return lambda *arguments: CliRunner().invoke(app, [str(each) for each in arguments])


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Path]:
    def write(text: str) -> Path:
        path = tmp_path / "program_under_test.py"
        path.write_text(PRELUDE + text)
        sys.modules.pop(path.stem, None)
        return path

    return write


def run(parrot: Parrot, path: Path, *more: str) -> Result:
    return parrot("run", path, "--model", "fake", *more)


@pytest.mark.parametrize(
    "command", ["run", "chat", "serve", "sessions", "explain", "bench", "config", "pull", "models", "doctor", "version"]
)
def test_every_command_has_help_with_an_example(parrot: Parrot, command: str):
    result = parrot(command, "--help")
    assert result.exit_code == 0
    assert f"parrot {command}" in result.output.split("Example")[1]


@pytest.mark.parametrize("command", ["usage", "publish", "unpublish", "tenant create", "tenant limits", "key create"])
def test_every_command_for_operators_has_help_with_an_example(parrot: Parrot, command: str):
    result = parrot(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"parrot {command}" in result.output.split("Example")[1]


def test_help_has_every_command_under_what_it_is_for(parrot: Parrot):
    told = parrot("--help").output
    panels = ["Programs", "Services and their tenants", "Models", "This machine"]
    assert [line.strip("╭─╮ ") for line in told.splitlines() if line.startswith("╭")] == ["Options", *panels]


def test_who_uses_a_service_without_keys_is_known_and_has_no_keys(
    parrot: Parrot, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("PARROT_DATA", str(tmp_path))
    assert parrot("usage", "local").exit_code == 0
    for command in ("key create", "key list", "tenant limits"):
        result = parrot(*command.split(), "local")
        assert result.exit_code == 1, command
        assert "is the built-in tenant of services without keys" in result.output, command


def test_the_package_is_the_command_where_that_is_on_no_path(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(sys, "argv", ["parrotserve", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("parrotserve", run_name="__main__")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"parrot {__version__}\n"


def test_without_a_command_there_is_help(parrot: Parrot):
    assert "parrot run examples/" in parrot().output


class TestRun:
    """`parrot run`."""

    def test_every_output_is_shown_then_the_result_and_the_figures(self, parrot, program):
        result = run(parrot, program("def main():\n    first = Say('a')\n    return Say(first).get()"))
        assert result.exit_code == 0
        *shown, returned, figures = result.output.splitlines()
        assert [line.split(" | ")[0] for line in shown] == ["Say.y", "Say.y #2"]
        assert returned in (f"main() returned: {shown[1].split(' | ')[1]!r}", "main() returned: Say.y #2")
        assert figures.startswith("2 requests, ")

    def test_outputs_that_nobody_asks_for_are_produced_and_shown(self, parrot, program):
        result = run(parrot, program("def main():\n    Say('a')"))
        assert result.output.splitlines()[0].startswith("Say.y | ")
        assert "main() returned nothing" in result.output

    def test_what_nobody_has_set_is_told_rather_than_waited_for(self, parrot, program, monkeypatch):
        monkeypatch.setattr("parrotserve.cli.watch.LOOK_SECONDS", 0.0)
        never = "P.SemanticVariable(name='never')"
        path = program(f"def main():\n    Say(Say({never}))\n    Say('a')\n    return 'the result'")
        result = run(parrot, path)
        assert result.exit_code == 1
        assert "Say.y #3 | " in result.output
        assert "main() returned: 'the result'" in result.output
        assert result.stderr == (
            "Error: Nobody has set 'never', so outputs that depend on it were not produced. Call set() on it, or "
            "remove it.\n"
        )

    def test_what_another_thread_is_to_set_is_waited_for(self, parrot, program, monkeypatch):
        monkeypatch.setattr("parrotserve.cli.watch.LOOK_SECONDS", 0.0)
        path = program(
            "import threading\n"
            "def main():\n"
            "    late = P.SemanticVariable()\n"
            "    Say(late)\n"
            "    threading.Timer(0.2, late.set, ['a']).start()\n"
        )
        result = run(parrot, path)
        assert (result.exit_code, result.stderr) == (0, "")
        assert "Say.y | " in result.output

    def test_showing_outputs_changes_nothing_that_is_computed(self, parrot, program):
        path = program("def main():\n    return Say('a', ).get() + str(len(list(Say('b').stream())) > 0)")
        quiet = run(parrot, path, "--quiet").output
        assert quiet.strip() in run(parrot, path).output

    def test_quiet_prints_the_result_alone(self, parrot, program):
        assert run(parrot, program("def main():\n    return 'just this'"), "-q").output == "just this\n"

    def test_why_requests_ran_as_they_did_is_told_where_that_is_asked(self, parrot, program):
        path = program("def go():\n    with P.Session():\n        Say('a').get()\n    return Say('b').get()")
        told = run(parrot, path, "--explain").output
        assert told.count("latency: it writes what is waited for; 'y' is waited for (latency)") == 2
        assert told.count("s running") == 2
        assert "objective" not in run(parrot, path).output

    def test_a_coroutine_function_is_awaited(self, parrot, program):
        result = run(parrot, program("async def main():\n    return (await Say('a').aget())[:0] + 'awaited'"), "-q")
        assert result.output == "awaited\n"

    @pytest.mark.parametrize("kind", ["def", "async def"])
    def test_a_generator_runs_to_its_end(self, parrot, program, kind):
        result = run(parrot, program(f"{kind} main():\n    yield Say('a')\n    yield 'the end'"), "-q")
        assert result.exit_code == 0
        assert result.output.rstrip().endswith(".\n\nthe end")

    def test_variables_in_the_result_are_got(self, parrot, program):
        result = run(parrot, program("def main():\n    return {'said': Say('a')}"), "-q")
        assert result.output.startswith("said:\n")
        assert result.output.rstrip().endswith(".")

    def test_an_error_in_the_program_shows_its_frames_alone(self, parrot, program):
        result = run(parrot, program("def main():\n    return {}[Say('a').get()]"))
        assert result.exit_code == 1
        assert "program_under_test.py" in result.output
        assert "return {}[Say('a').get()]" in result.output
        assert "KeyError" in result.output
        assert "parrotserve" not in result.output

    @pytest.mark.parametrize("options", [(), ("-q",)])
    def test_so_does_an_error_in_showing_what_it_returned(self, parrot, program, options):
        shy = "class Shy:\n    def __repr__(self):\n        raise ValueError('not me')\ndef main():\n    return Shy()"
        result = run(parrot, program(shy), *options)
        assert result.exit_code == 1
        assert "ValueError: not me" in result.output
        assert "parrotserve" not in result.output

    def test_a_syntax_error_shows_its_line(self, parrot, program):
        result = run(parrot, program("def main(:"))
        assert result.exit_code == 1
        assert "def main(:\n" in result.output
        assert "SyntaxError" in result.output
        assert "Traceback" not in result.output

    def test_an_error_of_parrot_is_one_line_that_names_the_users_line(self, parrot, program):
        result = run(parrot, program("def main():\n    return P.SemanticVariable().get(timeout=0)"))
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.startswith("Error: ")
        assert line.endswith("(program_under_test.py, line 8)")

    def test_an_error_in_a_native_function_shows_where(self, parrot, program):
        text = "@P.NativeFunction\ndef half(x):\n    return 1 / 0\ndef main():\n    return half(Say('a')).get()"
        result = run(parrot, program(text))
        assert result.exit_code == 1
        assert "return 1 / 0" in result.stderr
        assert result.stderr.splitlines()[-1].startswith("Error: ")

    def test_a_program_may_choose_its_exit_code(self, parrot, program):
        assert run(parrot, program("def main():\n    raise SystemExit(3)")).exit_code == 3

    def test_ctrl_c_is_one_word_and_130(self, parrot, program):
        result = run(parrot, program("def main():\n    raise KeyboardInterrupt"))
        assert result.exit_code == 130
        assert result.stderr == "Interrupted.\n"

    def test_a_script_that_runs_its_calls_when_it_is_loaded_is_told_what_to_do(self, parrot, program):
        path = program("print(Say('a').get())")
        result = run(parrot, path)
        assert result.exit_code == 2
        assert f"{path} has run its calls while it was loaded" in result.stderr
        assert f"`python {path}`" in result.stderr
        assert "def main():" in result.stderr
        assert "has run its calls" not in run(parrot, program("def helper(x): ...")).stderr

    def test_a_model_for_a_service_elsewhere_is_refused(self, parrot, program):
        result = parrot("run", program("def main(): ..."), "--url", "http://127.0.0.1:1", "--model", "fake")
        assert result.exit_code == 2
        assert "--model is for the embedded service" in result.output

    def test_a_service_that_is_not_there_is_one_line(self, parrot, program):
        result = parrot("run", program("def main():\n    return Say('a').get()"), "--url", "http://127.0.0.1:1")
        assert result.exit_code == 1
        assert "parrot serve" in result.stderr


class TestChat:
    """`parrot chat`."""

    @pytest.fixture
    def talk(self, parrot, monkeypatch) -> Callable[..., Result]:
        monkeypatch.setenv("PARROT_MODELS", "fake")
        return lambda *lines, arguments=(): CliRunner().invoke(app, ["chat", *arguments], input="\n".join(lines))

    @pytest.fixture
    def on_terminal(self, monkeypatch) -> None:
        monkeypatch.setattr("parrotserve.cli.chat._on_terminal", lambda: True)

    def test_a_script_gets_the_answers_to_its_messages_until_exit_and_nothing_else(self, talk):
        result = talk("Hello", "", "Again", "/exit", "not read")
        assert (result.exit_code, result.stderr) == (0, "")
        assert [line[-1:] for line in result.stdout.splitlines()] == [".", "."]
        assert "> " not in result.stdout

    @pytest.mark.usefixtures("on_terminal")
    def test_a_person_is_told_what_to_type_and_sees_a_prompt(self, talk):
        welcome, *_, last = talk("Hello").stdout.splitlines()
        assert welcome.startswith("Type a message")
        assert last == "> "

    def test_a_turn_reads_the_turns_before_it_until_reset(self, talk):
        first, second = talk("Hello", "Hello", arguments=["--seed", "1"]).stdout.splitlines()
        assert first != second
        first, second = talk("Hello", "/reset", "Hello", arguments=["--seed", "1"]).stdout.splitlines()
        assert first == second

    @pytest.mark.usefixtures("on_terminal")
    def test_a_reset_is_confirmed(self, talk):
        assert "> A new conversation.\n" in talk("/reset").stdout

    def test_an_unknown_command_lists_the_commands(self, talk):
        result = talk("/rest")
        assert "There is no command /rest. Type a message" in result.stderr
        assert result.stdout == ""

    def test_an_answer_that_was_cut_says_so(self, talk, monkeypatch):
        arguments = ["--max-tokens", "2"]
        result = talk("Hello", arguments=arguments)
        (answer,) = result.stdout.splitlines()
        assert result.stderr == "(cut at max_tokens)\n"
        monkeypatch.setattr("parrotserve.cli.chat._on_terminal", lambda: True)
        assert " (cut at max_tokens)\n" in talk("Hello", arguments=arguments).stdout
        assert "cut at max_tokens" not in answer + talk("Hello").output

    def test_a_failed_answer_does_not_end_the_chat(self, talk):
        result = talk("word " * 3000, "Hello")
        assert result.stderr.startswith("Error: ")
        assert len(result.stdout.splitlines()) == 1

    @pytest.mark.parametrize(("terminal", "code"), [(False, 1), (True, 0)])
    def test_scripts_are_told_of_a_failed_answer_people_have_seen_it(self, talk, monkeypatch, terminal, code):
        monkeypatch.setattr("parrotserve.cli.chat._on_terminal", lambda: terminal)
        assert talk("word " * 3000, "Hello").exit_code == code

    def test_ctrl_c_stops_an_answer_on_a_terminal(self, talk, monkeypatch):
        monkeypatch.setattr("parrotserve.cli.chat._on_terminal", lambda: True)
        monkeypatch.setattr(SemanticVariable, "stream", interrupted)
        result = talk("Hello", "/exit")
        assert result.exit_code == 0
        assert "(stopped)" in result.output

    def test_what_cannot_be_stopped_does_not_end_the_chat(self, talk, monkeypatch):
        def unreachable(_: SemanticVariable) -> None:
            raise ServiceUnavailable("Nobody there.")

        monkeypatch.setattr("parrotserve.cli.chat._on_terminal", lambda: True)
        monkeypatch.setattr(SemanticVariable, "stream", interrupted)
        monkeypatch.setattr(SemanticVariable, "cancel", unreachable)
        result = talk("Hello", "/exit")
        assert (result.exit_code, result.stderr) == (0, "Error: Nobody there.\n")

    def test_ctrl_c_ends_a_script(self, talk, monkeypatch):
        monkeypatch.setattr(SemanticVariable, "stream", interrupted)
        result = talk("Hello", "Again")
        assert (result.exit_code, result.stderr) == (130, "Interrupted.\n")


def interrupted(_: SemanticVariable) -> Iterator[str]:
    """A stream in which somebody presses Ctrl-C."""
    yield "Well"
    raise KeyboardInterrupt


class TestOthers:
    """`parrot serve`, `config`, `pull`, `models`, `version`."""

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--kv-memory", "much"], "write a size such as 512MiB"),
            (["--port", "99999"], "port must be between 0 and 65535"),
            (["--engines", "0"], "engines must be between 1 and 64"),
            (["--host", "0.0.0.0"], "there are no keys yet"),
            (["--log-level", "loud"], "log_level must be one of debug, info"),
            (["--config", "no-such.toml"], "The settings in no-such.toml cannot be read: No such file"),
        ],
    )
    def test_serve_refuses_settings_that_make_no_sense(self, parrot, arguments: list[str], message: str):
        result = parrot("serve", "--model", "fake", *arguments)
        assert result.exit_code == 2
        assert message in result.output

    def test_every_setting_has_a_flag(self, parrot):
        output = parrot("serve", "--help").output
        assert [setting.flag for setting in SETTINGS.values() if f"{setting.flag} " not in output] == []

    def test_config_says_where_each_setting_comes_from(self, parrot, tmp_path, monkeypatch):
        file = tmp_path / "config.toml"
        file.write_text("engines = 3\nthreads = 2\nport = 9000\n")
        monkeypatch.setenv("PARROT_THREADS", "4")
        monkeypatch.delenv("PARROT_DATA")
        flags = ["--config", file, "--port", "9100", "--model", "fake", "--model", "other", "--on-demand"]
        rows = {row.split()[0]: row.split()[1:] for row in parrot("config", *flags).output.splitlines()}
        assert rows["engines"] == ["3", str(file)]
        assert rows["threads"] == ["4", "PARROT_THREADS"]
        assert rows["port"] == ["9100", "flag"]
        assert rows["models"] == ["fake,other", "flag"]
        assert rows["on_demand"] == ["on", "flag"]
        assert rows["max_body_bytes"] == ["16MiB", "default"]
        assert rows["data"] == [str(platformdirs.user_data_path("parrot")), "default"]

    def test_a_flag_switches_off_what_the_environment_switches_on(self, parrot, monkeypatch):
        monkeypatch.setenv("PARROT_ON_DEMAND", "1")
        assert "off" in next(row for row in parrot("config", "--no-on-demand").output.splitlines() if "demand" in row)

    def test_explain_needs_a_service_that_is_there_already(self, parrot):
        result = parrot("explain", "s-1")
        assert result.exit_code == 2
        assert "PARROT_URL" in result.output
        # It starts none: an embedded service would not have the session.
        assert "embedded" not in parrot("explain", "--help").output

    def test_explain_without_a_session_points_to_the_list(self, parrot):
        result = parrot("explain", "--url", "http://127.0.0.1:9")
        assert result.exit_code == 2
        assert "say which session: `parrot sessions` lists those that live" in result.output

    def test_pull_of_an_unknown_model_says_what_there_is(self, parrot):
        result = parrot("pull", "smolm2-135m")
        assert result.exit_code == 1
        assert "Did you mean 'smollm2-135m'?" in result.stderr

    def test_version_says_what_a_report_needs(self, parrot):
        output = parrot("version").output
        assert output.startswith(f"parrot {__version__}\n")
        assert "Python 3" in output
        assert "CPU " in output
        assert parrot("--version").output == f"parrot {__version__}\n"


def test_a_file_that_may_not_be_touched_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    with pytest.raises(typer.Exit):
        guarded(lambda: (tmp_path / "missing").rename(tmp_path / "other"))()
    assert capsys.readouterr().err == f"Error: {tmp_path / 'missing'}: No such file or directory.\n"
