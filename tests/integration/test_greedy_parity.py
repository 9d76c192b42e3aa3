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


def load_parity() -> ModuleType:
    spec = importlib.util.spec_from_file_location("parity", SCRIPTS / "parity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["parity"] = module  # where its dataclasses look their types up
    spec.loader.exec_module(module)
    return module


parity = load_parity()
SETTINGS = list(parity.Setting)
GOLDEN = parity.read_golden()


@pytest.fixture(scope="module")
def core() -> NativeCore:
    return parity.reference_engine(resolve(DEFAULT_MODEL))


def shortened(golden: Any, *, count: int, longest: int, tokens: int) -> Any:
    chosen = [index for index, prompt in enumerate(golden["prompts"]) if len(prompt) <= longest][:count]
    assert len(chosen) == count
    return {
        "shared": golden["shared"],
        "prompts": [golden["prompts"][index] for index in chosen],
        **{
            key: [{name: values[:tokens] for name, values in golden[key][index].items()} for index in chosen]
            for key in ("alone", "behind_shared")
        },
    }


SMALL = {
    parity.Setting.ALONE: {"count": 4, "longest": 60, "tokens": 12},
    parity.Setting.MIXED: {"count": 16, "longest": 220, "tokens": 12},
    parity.Setting.SHARING: {"count": 16, "longest": 100, "tokens": 8},
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name.lower())
def test_the_first_tokens_equal_transformers(setting: Any, core: NativeCore):
    check(core, shortened(GOLDEN, **SMALL[setting]), setting)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name.lower())
def test_all_tokens_equal_transformers(setting: Any, core: NativeCore):
    check(core, GOLDEN, setting)


def check(core: NativeCore, golden: Any, setting: Any) -> None:
    differences = parity.compare(core, golden, setting)
    print(parity.describe(setting, golden, differences))
    assert [str(difference) for difference in differences if not difference.allowed] == []


def test_the_prompts_are_as_varied_as_they_should_be():
    lengths = [len(prompt) for prompt in GOLDEN["prompts"]]
    assert (len(lengths), min(lengths), max(lengths), len(GOLDEN["shared"])) == (40, 5, 1500, 500)
    for key in ("alone", "behind_shared"):
        assert [(len(entry["tokens"]), len(entry["gaps"])) for entry in GOLDEN[key]] == [(64, 64)] * 40
