"""The native engine's greedy tokens equal those of Hugging Face transformers in float32."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from parrotserve.engines.native.loop import NativeCore
from parrotserve.models.registry import DEFAULT_MODEL, resolve

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look their types up, and other scripts find it
    spec.loader.exec_module(module)
    return module


parity = load("parity")
invariance = load("invariance")
SETTINGS = list(parity.Setting)
GOLDEN = parity.read_golden()


@pytest.fixture(scope="module")
def core() -> NativeCore:
    return parity.reference_engine(resolve(DEFAULT_MODEL))


def shortened(*, count: int, longest: int, tokens: int) -> Any:
    chosen = [index for index, prompt in enumerate(GOLDEN["prompts"]) if len(prompt) <= longest][:count]
    assert len(chosen) == count
    return parity.excerpt(GOLDEN, chosen, tokens)


SMALL = {
    parity.Setting.ALONE: {"count": 4, "longest": 60, "tokens": 12},
    parity.Setting.MIXED: {"count": 16, "longest": 220, "tokens": 12},
    parity.Setting.SHARING: {"count": 16, "longest": 100, "tokens": 8},
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name.lower())
def test_the_first_tokens_equal_transformers(setting: Any, core: NativeCore):
    check(core, shortened(**SMALL[setting]), setting)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name.lower())
def test_all_tokens_equal_transformers(setting: Any, core: NativeCore):
    check(core, GOLDEN, setting)


def check(core: NativeCore, golden: Any, setting: Any) -> None:
    differences = parity.compare(core, golden, setting)
    print(parity.describe(setting, golden, differences))
    assert [str(difference) for difference in differences if not difference.allowed] == []


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("chunk", invariance.CHUNKS)
def test_no_text_depends_on_how_it_was_computed(chunk: int):
    manners = list(invariance.differences(resolve(DEFAULT_MODEL), chunk))
    assert len(manners) == 10
    found = [f"{manner}, {setting}: {one}" for manner, setting, differences in manners for one in differences]
    print(*found, sep="\n")
    assert [one for one in found if "NOT a near tie" in one] == []


def test_the_prompts_are_as_varied_as_they_should_be():
    lengths = [len(prompt) for prompt in GOLDEN["prompts"]]
    assert (len(lengths), min(lengths), max(lengths), len(GOLDEN["shared"])) == (40, 5, 1500, 500)
    for key in ("alone", "behind_shared"):
        assert [(len(entry["tokens"]), len(entry["gaps"])) for entry in GOLDEN[key]] == [(64, 64)] * 40
