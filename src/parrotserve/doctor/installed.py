"""Checks of the installation, and of the machine that it is on."""

import importlib
import importlib.util
import os
import platform
import sys
from pathlib import Path

from rich.filesize import decimal

import parrotserve
from parrotserve.control_groups import processor_quota
from parrotserve.cpu import cpu_features
from parrotserve.doctor.finding import Finding, Verdict
from parrotserve.engines.native.kernels import CLEARLY_FASTER, chosen_variant, measured_variants
from parrotserve.engines.native.memory import default_kv_bytes, usable_memory
from parrotserve.engines.native.settings import usable_cores

_EXTENSIONS = ("parrotserve._cpu", "parrotserve._kernels")
_REINSTALL = "reinstall with `pip install --force-reinstall --no-deps` from the same source"


def python() -> Finding:
    """The interpreter."""
    version = platform.python_version()
    return Finding(
        subject="Python",
        found=f"{version} ({sys.executable}) on {platform.platform()}",
        details={"version": version, "executable": sys.executable, "platform": platform.platform()},
    )


def package() -> Finding:
    """Parrot itself."""
    folder = Path(parrotserve.__file__).parent
    return Finding(
        subject="Parrot",
        found=f"{parrotserve.__version__} in {folder}",
        details={"version": parrotserve.__version__, "folder": str(folder)},
    )


def extension() -> Finding:
    """Whether the compiled extension is there and loads."""
    faults: dict[str, str] = {}
    for name in _EXTENSIONS:
        try:
            importlib.import_module(name)
        except ImportError as error:
            faults[name] = str(error)
    if not faults:
        return Finding(subject="Extension", found="compiled", details={"compiled": True})
    if not any(importlib.util.find_spec(name) for name in _EXTENSIONS):
        return Finding(
            subject="Extension",
            verdict=Verdict.NOTICE,
            found="not built, because there was no C++ compiler: engines run on the NumPy backend, many times slower",
            advice=f"Install a C++17 compiler (GCC or Clang), then {_REINSTALL}.",
            details={"compiled": False},
        )
    return Finding(
        subject="Extension",
        verdict=Verdict.BROKEN,
        found="; ".join(f"{name} does not load: {why}" for name, why in faults.items()),
        advice=f"It was built for another Python or system: {_REINSTALL}.",
        details={"compiled": False, "faults": faults},
    )


def instructions() -> Finding:
    """The instruction set extensions of the CPU."""
    features = cpu_features()
    shown = (
        "extensions unknown without the compiled extension" if features is None else " ".join(features) or "baseline"
    )
    return Finding(
        subject="CPU",
        found=f"{platform.machine()}: {shown}",
        details={"machine": platform.machine(), "features": None if features is None else list(features)},
    )


def variants() -> Finding:
    """Which backend `auto` chooses, and which of its variants."""
    speeds, chosen = measured_variants(), chosen_variant()
    if chosen is None:
        return Finding(
            subject="Backend",
            found="reference (NumPy, float32): the compiled extension is missing",
            details={"backend": "reference"},
        )
    newest = next(iter(speeds))
    if chosen == newest:
        reason = f"the newest that runs here; none is {CLEARLY_FASTER} times as fast"
    else:
        reason = f"{speeds[chosen] / speeds[newest]:.1f} times as fast as the newest, {newest}"
    measured = ", ".join(f"{name} {speed:.0f}" for name, speed in speeds.items())
    return Finding(
        subject="Backend",
        found=f"kernels, variant {chosen}: {reason} (GFLOP/s on one core: {measured})",
        details={"backend": "kernels", "variant": chosen, "reason": reason, "gflops": speeds},
    )


def threads() -> Finding:
    """How many cores engines may use."""
    usable, installed = usable_cores(), os.cpu_count() or 1
    quota = processor_quota()
    details = {"usable": usable, "installed": installed, "quota": quota}
    found = f"{usable} an engine, one a core that this process may use, of {installed}"
    if quota is not None and quota < usable:
        return Finding(
            subject="Threads",
            verdict=Verdict.NOTICE,
            found=f"{found}; its container may use {quota:g} cores' time only, so that threads wait for one another",
            advice=f"Set PARROT_THREADS={max(1, int(quota))}.",
            details=details,
        )
    return Finding(subject="Threads", found=found, details=details)


def memory() -> Finding:
    """How much memory there is, and how much of it an engine takes for KV by default."""
    usable, budget = usable_memory(), default_kv_bytes()
    return Finding(
        subject="Memory",
        found=f"{decimal(usable)} for this process; KV cache of an engine by default {decimal(budget)}",
        details={"usable_bytes": usable, "default_kv_bytes": budget},
    )
