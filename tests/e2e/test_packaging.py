"""What `pip install` makes of a checkout: with a compiler, without one, and editable."""

import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = '''
import Parrot as P

@P.SemanticFunction
def Say(x):
    """{{input:x}} {{output:y}}"""

def main():
    return Say("a").get()
'''
INPUTS = ["pyproject.toml", "CMakeLists.txt", "README.md", "LICENSE", "src"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The sources alone, so that nothing built here before helps."""
    target = tmp_path / "checkout"
    target.mkdir()
    for name in INPUTS:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
        else:
            shutil.copy(source, target / name)
    return target


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An empty environment's Python."""
    venv.create(tmp_path / "venv", with_pip=True)
    return tmp_path / "venv" / "bin" / "python"


def pip(python: Path | str, *args: str, **environment: str) -> str:
    done = subprocess.run(
        [python, "-m", "pip", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PIP_CONSTRAINT": str(ROOT / "constraints.txt")} | environment,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def build_wheel(python: Path, checkout: Path, **environment: str) -> tuple[Path, str]:
    output = checkout.parent / "wheels"
    log = pip(python, "wheel", "-v", "--no-deps", "-w", str(output), str(checkout), **environment)
    (wheel,) = output.glob("parrotserve-*.whl")
    return wheel, log


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_with_a_compiler_the_wheel_holds_both_packages_and_the_extension(python: Path, checkout: Path):
    started = time.monotonic()
    wheel, _ = build_wheel(python, checkout)
    print(f"built in {time.monotonic() - started:.0f} s: {wheel.name}, {wheel.stat().st_size / 1e6:.2f} MB")
    assert wheel.stat().st_size < 5e6
    content = names(wheel)
    assert "Parrot/__init__.py" in content
    assert {"Parrot/py.typed", "parrotserve/py.typed"} <= set(content)
    for extension in ("_cpu", "_kernels"):
        assert any(name.startswith(f"parrotserve/{extension}.") and name.endswith(".so") for name in content)
    assert not any(name.startswith(("kernels/", "tests/", "parrot/")) for name in content)


def test_without_a_compiler_the_wheel_is_pure_and_the_notice_is_given(python: Path, checkout: Path):
    wheel, log = build_wheel(python, checkout, CXX="/bin/false")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert not any(name.endswith(".so") for name in names(wheel))
    assert "WITHOUT its compiled extension" in log

    pip(python, "install", "--no-deps", str(wheel))
    shown = subprocess.run([python, "-m", "parrotserve.cpu"], capture_output=True, text=True, check=True)
    assert "C++17 compiler" in shown.stderr


def test_without_a_compiler_the_doctor_says_so_and_programs_run(python: Path, checkout: Path):
    pip(python, "install", str(checkout), CXX="/bin/false")
    parrot = python.parent / "parrot"

    def doctor(**environment: str) -> subprocess.CompletedProcess[str]:
        given = os.environ | {"PARROT_MODELS": "fake"} | environment
        return subprocess.run([parrot, "doctor"], capture_output=True, text=True, env=given)

    plain = doctor()
    assert plain.returncode == 0, plain.stdout
    assert "reference (NumPy, float32)" in plain.stdout
    assert "Install a C++17 compiler" in plain.stdout
    assert doctor(PARROT_WEIGHTS="int8").returncode == 1
    program = checkout / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run([parrot, "run", program, "--model", "fake", "-q"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("environment", [{}, {"CXX": "/bin/false"}], ids=["as it is", "no compiler"])
def test_an_editable_install_sees_files_that_appear_later(python: Path, checkout: Path, environment: dict[str, str]):
    pip(python, "install", "--no-deps", "--editable", str(checkout), **environment)
    (checkout / "src" / "parrotserve" / "appeared.py").write_text("here = __file__\n")

    program = "import parrotserve.appeared as module; print(module.here)"
    shown = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == str(checkout / "src" / "parrotserve" / "appeared.py")


def test_the_run_time_install_stays_small_and_free_of_torch(python: Path, checkout: Path):
    pip(python, "install", str(checkout))
    site_packages = python.parent.parent / "lib"
    megabytes = sum(file.stat().st_size for file in site_packages.rglob("*") if file.is_file()) / 2**20
    assert megabytes < 250
    listed = pip(python, "list", "--format", "freeze").lower()
    assert "torch" not in listed
    assert "transformers" not in listed


def test_every_pin_is_the_version_in_use():
    pins = (ROOT / "constraints.txt").read_text()
    unpinned = [
        line
        for line in pip(sys.executable, "list", "--format", "freeze", "--exclude", "parrotserve").splitlines()
        if "==" in line and not line.startswith(("pip==", "setuptools=="))
        and line.lower().replace("_", "-") not in pins
    ]  # fmt: skip
    assert unpinned == []
