"""Under which circumstances something was measured: what a reader needs to judge a figure, or to measure it again."""

import contextlib
import datetime
import os
import platform
import re
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from parrotserve import __version__

_PACKAGES = ("numpy", "tokenizers", "httpx", "fastapi", "uvicorn")


def circumstances(*, seed: int | None = None) -> dict[str, Any]:
    """The command, the versions and the machine."""
    return {
        "command": _command(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seed": seed,
        "versions": {
            "parrotserve": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in _PACKAGES},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "load": [round(each, 2) for each in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        },
    }


def _command() -> str:
    """What was run, without where it is installed."""
    script = Path(sys.argv[0])
    program = ["parrot"] if script.parent.name == "cli" or script.name == "parrot" else ["python", _within(script)]
    return shlex.join([*program, *sys.argv[1:]])


def _within(script: Path) -> str:
    """A script's path from the folder that the project is in."""
    project = Path(__file__).resolve().parents[3]
    return str(script.resolve().relative_to(project) if script.resolve().is_relative_to(project) else script.name)


def processor() -> str:
    """The CPU's name, where the system tells it."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
