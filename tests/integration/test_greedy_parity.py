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


def shortened(entries: list[dict[str, Any]], *, count: int, longest: int, tokens: int) -> list[dict[str, Any]]:
    chosen = [entry for entry in entries if len(entry["prompt"]) <= longest][:count]
    assert len(chosen) == count
    return [{"prompt": e["prompt"], "tokens": e["tokens"][:tokens], "gaps": e["gaps"][:tokens]} for e in chosen]


SMALL = {
    parity.Setting.ALONE: {"count": 4, "longest": 60, "tokens": 12},
    parity.Setting.MIXED: {"count": 16, "longest": 220, "tokens": 12},
    parity.Setting.SHARING: {"count": 16, "longest": 100, "tokens": 8},
}


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name.lower())
def test_the_first_tokens_equal_transformers(setting: Any, core: NativeCore):
    golden = GOLDEN | {key: shortened(GOLDEN[key], **SMALL[setting]) for key in ("alone", "behind_shared")}
    check(core, golden, setting)


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
    lengths = [len(entry["prompt"]) for entry in GOLDEN["alone"]]
    assert (len(lengths), min(lengths), max(lengths)) == (40, 5, 1500)
    assert (len(GOLDEN["behind_shared"]), len(GOLDEN["shared"])) == (16, 500)
    for entry in GOLDEN["alone"] + GOLDEN["behind_shared"]:
        assert len(entry["tokens"]) == len(entry["gaps"]) == 64
