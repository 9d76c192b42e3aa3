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
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
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


def processor() -> str:
    """The CPU's name, where the system tells it."""
    with contextlib.suppress(OSError):
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
