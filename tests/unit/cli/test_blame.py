"""What is shown of an exception that a user's program raises."""

from collections.abc import Callable

import pytest

from parrotserve.cli.blame import format_error

PROGRAM = """
import os

def misspelt_name():
    words = 1
    return wrods

def misspelt_attribute():
    return os.pth

def misspelt_as_it_went_on():
    try:
        misspelt_name()
    except NameError as error:
        raise RuntimeError("It is over.") from error

def raised():
    raise NameError("name 'wrods' is not one of ours")

def misspelt_beyond_recognition():
    return zyxwvut
"""


def shown(function: str) -> list[str]:
    """The lines that tell of what a function of the program raises, without where."""
    names: dict[str, Callable[[], object]] = {}
    exec(compile(PROGRAM, "/program.py", "exec"), names)  # type: ignore[arg-type]
    with pytest.raises(Exception) as caught:  # noqa: PT011
        names[function]()
    return [line for line in format_error(caught.value).splitlines() if "Error: " in line]


@pytest.mark.parametrize(
    ("function", "told"),
    [
        ("misspelt_name", ["NameError: name 'wrods' is not defined. Did you mean: 'words'?"]),
        ("misspelt_attribute", ["AttributeError: module 'os' has no attribute 'pth'. Did you mean: 'path'?"]),
        (
            "misspelt_as_it_went_on",
            ["NameError: name 'wrods' is not defined. Did you mean: 'words'?", "RuntimeError: It is over."],
        ),
        ("raised", ["NameError: name 'wrods' is not one of ours"]),
        ("misspelt_beyond_recognition", ["NameError: name 'zyxwvut' is not defined"]),
    ],
)
def test_what_python_takes_a_misspelt_name_for_is_told(function: str, told: list[str]):
    assert shown(function) == told


def test_finding_that_out_shows_nothing(capsys: pytest.CaptureFixture[str]):
    shown("misspelt_name")
    assert capsys.readouterr() == ("", "")
