"""The circumstances of a measurement: what a reader needs to judge a figure, or to measure it again."""

import contextlib
import datetime
import hashlib
import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from parrotserve import __version__

_PACKAGES = ("numpy", "tokenizers", "httpx", "fastapi", "uvicorn")
_PROJECT = Path(__file__).resolve().parents[3]
"""The project's folder, if this is run from its source."""


def circumstances(*, seed: int | None = None) -> dict[str, Any]:
    """The command, the versions and the machine."""
    return {
        "command": _command(),
        "date": now(),
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


def now() -> str:
    """The present time in UTC, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def source_version() -> str:
    """Identifies the measured source: Git's hash of `src`, and a hash of uncommitted changes in it. A package that is
    installed without its source has only a version."""
    if Path(__file__).resolve().parents[2] != _PROJECT / "src":
        return __version__
    changes = _git("diff", "HEAD", "--", "src")
    changed = f"+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else ""
    return (_git("rev-parse", "--short=12", "HEAD:src") or "unknown") + changed


def _git(*arguments: str) -> str:
    try:
        ran = subprocess.run(["git", *arguments], cwd=_PROJECT, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return ran.stdout.strip()


def _command() -> str:
    """The command line, without the path at which the program is installed."""
    script = Path(sys.argv[0])
    program = ["parrot"] if script.parent.name == "cli" or script.name == "parrot" else ["python", _within(script)]
    return shlex.join([*program, *sys.argv[1:]])


def _within(script: Path) -> str:
    """A script's path relative to the project's folder, or its name if it lies elsewhere."""
    return str(script.resolve().relative_to(_PROJECT) if script.resolve().is_relative_to(_PROJECT) else script.name)


def processor() -> str:
    """The CPU's name, or its architecture if the system does not tell the name."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
