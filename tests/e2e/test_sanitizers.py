"""The kernels, built with AddressSanitizer and UndefinedBehaviorSanitizer, pass the tests of the kernels."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TESTS = [f"tests/unit/native/test_{name}.py" for name in ("kernels", "kernels_random", "restored", "screen")]

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("c++") is None or sys.platform != "linux", reason="needs a C++ compiler, on Linux"),
]


def runtime(name: str) -> str:
    """The compiler's own copy of a library. Python was not built with it, so it must be there before Python is."""
    return subprocess.run(
        ["c++", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parrot with sanitized kernels, in a folder of its own: what is installed stays as it is."""
    target = tmp_path_factory.mktemp("sanitized")
    options = ["cmake.define.PARROT_SANITIZE=ON", "install.strip=false"]
    flags = [part for option in options for part in ("--config-settings", option)]
    built = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(target), *flags, str(ROOT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")},
    )
    assert built.returncode == 0, built.stdout
    return target


def python(folder: Path, *arguments: str, preloaded: bool = True) -> subprocess.CompletedProcess[str]:
    """This Python with its packages, but `parrotserve` from the folder: -S leaves out the editable install's hook."""
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(folder), sysconfig.get_path("purelib")]),
        "ASAN_OPTIONS": "detect_leaks=0",  # Python's own, at exit
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "PYTHONMALLOC": "malloc",  # so that what goes beyond one of Python's buffers shows
    }
    if preloaded:
        environment["LD_PRELOAD"] = f"{runtime('libasan.so')} {runtime('libstdc++.so')}"
    return subprocess.run([sys.executable, "-S", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_kernels_tests_pass_under_sanitizers(sanitized: Path):
    done = python(sanitized, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not long", "-rs", *TESTS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped" not in done.stdout


def test_it_is_the_sanitized_build_that_was_tested(sanitized: Path):
    done = python(sanitized, "-c", "import parrotserve._kernels", preloaded=False)
    assert done.returncode != 0
    assert "ASan runtime does not come first" in done.stderr
