"""Tables of the guide have a row for everything that there is, and what they say of defaults is so."""

import dataclasses
import re
from pathlib import Path

import pytest

from parrotserve import errors, transforms
from parrotserve.sampling import Sampling

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "guide.md").read_text(encoding="utf-8")


def table(heading: str) -> dict[str, list[str]]:
    """The rows of all tables below a heading, up to the next one, by what stands first in backquotes."""
    section = re.split(r"^#+ ", GUIDE.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return {row[0].strip().split("`")[1]: [cell.strip() for cell in row[1:]] for row in rows}


@pytest.mark.parametrize("field", dataclasses.fields(Sampling), ids=lambda field: field.name)
def test_every_field_of_sampling_is_there_with_its_default(field: "dataclasses.Field[object]"):
    default = table("Sampling")[field.name][0]
    assert default == f"`{getattr(Sampling(), field.name)!r}`"


def test_every_transform_is_there():
    assert {name.partition("(")[0] for name in table("Transforms")} == transforms._SIGNATURES.keys()


def test_the_tree_of_errors_is_that_of_the_code():
    assert errors.__doc__ is not None
    tree = [line.strip() for line in errors.__doc__.splitlines() if re.match(r"    (ParrotError|[├│└])", line)]
    assert len(tree) == len(errors.ParrotError.by_code) + 1
    assert [line for line in GUIDE.splitlines() if line in tree] == tree
