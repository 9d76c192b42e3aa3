"""The compiled extension is optional: with it the CPU's features are known, without it there is one notice."""

import logging
import platform
import shutil
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

import pytest

from parrotserve import cpu

CPUINFO = Path("/proc/cpuinfo")


def is_installed() -> bool:
    """By a build, rather than found on the path."""
    try:
        return distribution("parrotserve") is not None
    except PackageNotFoundError:
        return False


def can_compile() -> bool:
    return bool(shutil.which("c++")) and Path(sysconfig.get_path("include"), "Python.h").exists()


@pytest.fixture(autouse=True)
def fresh_cache():
    cpu.cpu_features.cache_clear()
    yield
    cpu.cpu_features.cache_clear()


def test_without_the_extension_features_are_unknown_and_one_notice_says_what_to_do(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "parrotserve._cpu", None)

    with caplog.at_level(logging.WARNING):
        assert cpu.cpu_features() is None
        assert cpu.cpu_features() is None

    (record,) = caplog.records
    assert "without its compiled extension" in record.message
    assert "C++17 compiler" in record.message


def test_the_command_line_view_succeeds_without_the_extension(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "parrotserve._cpu", None)
    cpu.main()
    assert capsys.readouterr().out == ""


class TestWithTheExtension:
    @pytest.fixture(autouse=True)
    def extension(self):
        if find_spec("parrotserve._cpu") is None:
            # A failed build installs without a word, so here is where a broken one is found out.
            assert not (is_installed() and can_compile()), "there is a compiler; building the extension failed"
            pytest.skip("installed without a C++ compiler")

    def test_features_are_sorted_and_distinct(self):
        features = cpu.cpu_features()
        assert features is not None
        assert list(features) == sorted(set(features))

    @pytest.mark.skipif(
        platform.machine() != "x86_64" or not CPUINFO.exists(), reason="compares with Linux's own view of x86-64"
    )
    def test_features_agree_with_the_operating_systems_view(self):
        known = {
            "sse4_2", "avx", "f16c", "fma", "avx2", "avx_vnni", "avx512f", "avx512dq", "avx512bw", "avx512vl",
            "avx512vbmi", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16", "amx_int8",
        }  # fmt: skip
        flags = next(line for line in CPUINFO.read_text().splitlines() if line.startswith("flags"))
        assert set(cpu.cpu_features() or ()) == known & set(flags.split(":")[1].split())

    def test_the_module_prints_them(self):
        shown = subprocess.run(
            [sys.executable, "-m", "parrotserve.cpu"], capture_output=True, text=True, check=True
        ).stdout
        assert shown.startswith("compiled extension: yes")
