"""What a reader sees: lines in a pipe, panels on a terminal."""

import io
import re
import sys

import pytest
from rich.console import Console

from parrotserve.cli.console import harmless
from parrotserve.cli.screens import LineScreen, PanelScreen, SilentScreen, screen_on
from parrotserve.cli.watch import Watched
from parrotserve.errors import EngineFailed, ServiceUnavailable
from parrotserve.sampling import FinishReason

WIDTH = 40


def variable(title: str = "write.code") -> Watched:
    return Watched(title, "s-1")


def grow(screen, watched: Watched, text: str) -> None:
    watched.text += text
    screen.grew(watched, text)


def finish(screen, watched: Watched, **ending) -> None:
    for name, value in ({"value": watched.text} | ending).items():
        setattr(watched, name, value)
    screen.settled(watched)


class TestLines:
    """In a pipe."""

    @pytest.fixture
    def out(self) -> io.StringIO:
        return io.StringIO()

    @pytest.fixture
    def screen(self, out: io.StringIO) -> LineScreen:
        return LineScreen(out)

    @staticmethod
    def read(out: io.StringIO) -> str:
        """What is new."""
        text = out.getvalue()
        out.seek(0)
        out.truncate()
        return text

    def test_lines_appear_when_they_are_complete(self, screen, out):
        code = variable()
        screen.declared(code)
        grow(screen, code, "import sna")
        assert self.read(out) == ""
        grow(screen, code, "ke\n\nsnake")
        assert self.read(out) == "write.code | import snake\nwrite.code |\n"
        finish(screen, code)
        assert self.read(out) == "write.code | snake\n"

    def test_two_variables_do_not_mix_within_a_line(self, screen, out):
        left, right = variable("left"), variable("right")
        for each in (left, right):
            screen.declared(each)
        for number in range(2):
            grow(screen, left, f"l{number}\n")
            grow(screen, right, f"r{number}\n")
        assert self.read(out).splitlines() == ["left | l0", "right | r0", "left | l1", "right | r1"]

    def test_an_output_without_text_still_appears(self, screen, out):
        code = variable()
        screen.declared(code)
        finish(screen, code)
        assert self.read(out) == "write.code |\n"

    def test_how_it_ended_is_said_where_that_matters(self, screen, out):
        cut, broken = variable("cut"), variable("broken")
        for each in (cut, broken):
            screen.declared(each)
        grow(screen, cut, "half")
        finish(screen, cut, reason=FinishReason.LENGTH)
        finish(screen, broken, value=None, error=EngineFailed("its engine died."))
        assert self.read(out).splitlines() == [
            "cut | half",
            "cut - cut at max_tokens",
            "broken ! engine_failed: its engine died.",
        ]

    def test_what_to_do_about_a_lost_service_is_not_repeated_with_every_output(self, screen, out):
        for title in ("one", "two"):
            lost = variable(title)
            screen.declared(lost)
            finish(screen, lost, value=None, error=ServiceUnavailable("It is gone. Start it again."))
        assert self.read(out).splitlines() == ["one ! service_unavailable", "two ! service_unavailable"]

    def test_what_the_program_prints_stays_whole_lines_meanwhile(self, screen, out):
        code = variable()
        with screen:
            print("before: ", end="", flush=True)
            screen.declared(code)
            grow(screen, code, "one\n")
            print("the program's ", end="", flush=True)
            grow(screen, code, "two\n")
            print("own line")
        assert self.read(out).splitlines() == [
            "before: ",
            "write.code | one",
            "write.code | two",
            "the program's own line",
        ]

    def test_the_beginning_of_a_line_is_shown_where_a_run_breaks_off(self, screen, out):
        with screen:
            code = variable()
            screen.declared(code)
            grow(screen, code, "half a li")
            print("and the program's", end="")
        finish(screen, code, value=None, error=EngineFailed("too late to be shown."))
        assert self.read(out) == "and the program's\nwrite.code | half a li\n"


class TestPanels:
    """On a terminal."""

    @pytest.fixture
    def terminal(self) -> Console:
        return Console(
            file=io.StringIO(), force_terminal=True, width=WIDTH, height=12, highlight=False, markup=False,
            color_system=None, _environ={},
        )  # fmt: skip

    @staticmethod
    def drawn(terminal: Console) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.file.getvalue())

    @staticmethod
    def now(screen: PanelScreen, terminal: Console) -> list[str]:
        with terminal.capture() as capture:
            terminal.print(screen._render())
        return capture.get().splitlines()

    def test_a_finished_variable_is_there_whole_with_its_title(self, terminal):
        with PanelScreen(terminal) as screen:
            code = variable()
            screen.declared(code)
            grow(screen, code, "\n".join(f"line {number}" for number in range(30)))
            finish(screen, code, reason=FinishReason.LENGTH)
        drawn = self.drawn(terminal)
        assert "write.code" in drawn
        assert all(f"line {number} " in drawn for number in range(30))
        assert "cut at max_tokens" in drawn

    def test_that_it_starts_is_shown_only_until_something_else_is(self, terminal):
        with PanelScreen(terminal) as screen:
            screen.starting()
            code = variable()
            screen.declared(code)
            grow(screen, code, "text")
            finish(screen, code)
        drawn = self.drawn(terminal)
        assert drawn.startswith("Starting ...\r" + " " * len("Starting ...") + "\r")

    def test_what_is_being_written_fits_the_terminal_and_shows_its_end(self, terminal):
        screen = PanelScreen(terminal)
        many = [variable(f"v{number}") for number in range(9)]
        for each in many:
            each.text = "\n".join(f"line {number}" for number in range(50)) + " the end"
        screen._open = many
        lines = self.now(screen, terminal)
        assert len(lines) <= terminal.height
        assert "the end" in "\n".join(lines)
        assert lines[-1].startswith("9 being written")

    def test_a_finished_variable_is_not_drawn_again_below_itself(self, terminal, monkeypatch):
        monkeypatch.setattr("parrotserve.cli.screens._REFRESH_PER_SECOND", 0.001)  # drawn when something happens only
        with PanelScreen(terminal) as screen:
            first, second = variable("first"), variable("second")
            for each in (first, second):
                screen.declared(each)
                grow(screen, each, "text")
            terminal.file.truncate(0)
            finish(screen, first)
            assert self.drawn(terminal).rpartition("first")[2].count("second") == 1
            assert self.drawn(terminal).count("first") == 1
            terminal.file.truncate(0)
            finish(screen, second)
        drawn = self.drawn(terminal)
        assert drawn.count("second") == 1
        assert not [line for line in drawn.splitlines() if line.strip().startswith(",")]

    def test_what_has_no_text_yet_is_counted_as_waiting(self, terminal):
        screen = PanelScreen(terminal)
        screen._open = [variable("a"), variable("b")]
        (line,) = self.now(screen, terminal)
        assert line.startswith("2 waiting, ")

    def test_long_lines_wrap_inside_their_panel(self, terminal):
        screen = PanelScreen(terminal)
        long = variable()
        long.text = "word " * 400
        screen._open = [long]
        lines = self.now(screen, terminal)
        assert len(lines) <= terminal.height
        assert all(len(line) <= WIDTH for line in lines)

    def test_what_is_unfinished_at_the_end_is_shown_as_far_as_it_came(self, terminal):
        with PanelScreen(terminal) as screen:
            code = variable()
            screen.declared(code)
            grow(screen, code, "half")
        finish(screen, code, value=None, error=EngineFailed("too late to be shown."))
        assert self.drawn(terminal).rstrip().splitlines()[-2].startswith("│ half")

    def test_markup_and_escapes_in_a_text_are_shown_not_obeyed(self, terminal):
        with PanelScreen(terminal) as screen:
            code = variable()
            screen.declared(code)
            grow(screen, code, "[bold]x[/bold] \x1b[2J")
            finish(screen, code)
        assert "[bold]x[/bold] ␛[2J" in self.drawn(terminal)

    def test_prints_of_the_program_appear(self, terminal):
        with PanelScreen(terminal) as screen:
            code = variable()
            screen.declared(code)
            print("half ", end="", flush=True)
            print("and whole")
            finish(screen, code)
        assert "half and whole" in self.drawn(terminal)

    def test_without_variables_the_prompt_of_input_appears_at_once(self, terminal):
        with PanelScreen(terminal):
            print("you> ", end="", flush=True)
            assert self.drawn(terminal) == "you> "

    def test_the_programs_streams_are_its_own_again_afterwards(self, terminal):
        before = sys.stdout, sys.stderr
        with PanelScreen(terminal):
            assert sys.stdout is not before[0]
        assert (sys.stdout, sys.stderr) == before


def test_a_silent_screen_says_nothing(capsys):
    with SilentScreen() as screen:
        code = variable()
        screen.starting()
        screen.declared(code)
        grow(screen, code, "text\n")
        finish(screen, code)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("terminal", "kind"), [(True, PanelScreen), (False, LineScreen)])
def test_a_terminal_gets_panels(terminal: bool, kind: type):
    assert isinstance(screen_on(Console(file=io.StringIO(), force_terminal=terminal)), kind)


def test_control_characters_become_pictures_but_lines_and_tabs_stay():
    assert harmless("a\tb\nc\x1b\x07\x7f") == "a\tb\nc␛␇␡"
