"""Print constraints.txt: every distribution that is needed to install, build, test and check Parrot.

Run by `make constraints` with the Python of an empty virtual environment. Only resolves; installs nothing.
"""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

HEADER = """\
# The versions that Parrot is tested with: run time, tests, checks and the build, with all they need in turn.
# The Makefile installs with them. To renew: `make constraints`, then `make check test`.
"""
ROOT = Path(__file__).resolve().parent.parent


def requirements() -> list[str]:
    """Everything that pyproject.toml requires, and the build tools that its backend adds if they are missing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted: list[str] = [*project["build-system"]["requires"], "cmake>=3.18", "ninja>=1.5"]
    wanted += project["project"]["dependencies"]
    for name, extra in project["project"]["optional-dependencies"].items():
        # Not pinned: the clients of other projects are tested in the versions that their users get.
        wanted += extra if name != "conformance" else []
    return wanted


def main() -> None:
    """Resolve as pip would and print one pin per line, sorted."""
    resolved = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-", *requirements()],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout
    pins = {
        re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower(): item["metadata"]["version"]
        for item in json.loads(resolved)["install"]
    }
    print(HEADER + "\n".join(f"{name}=={version}" for name, version in sorted(pins.items())))


if __name__ == "__main__":
    main()
