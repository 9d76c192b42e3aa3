"""The file that `benchmarks/engine.py` fills: what was measured at each point, written after every one of them."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

from points import OURS, Point

from parrotserve.bench.circumstances import circumstances

_ROOT = Path(__file__).parent.parent


class Records:
    """Points by their names. Those of the same source, machine and number of threads need not be measured again."""

    def __init__(self, path: Path | None, *, model: str, threads: int, seed: int) -> None:
        self._path = path
        self._here = {
            "benchmark": "engine",
            "model": model,
            "threads": threads,
            "source": source_version(),
            **circumstances(seed=seed),
        }
        self.points: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self.points = json.loads(path.read_text(encoding="utf-8"))["points"]

    def has(self, point: Point, sides: list[str]) -> bool:
        """Whether all of these sides were measured there, of the same source on the same machine."""
        found = self.points.get(str(point))
        return found is not None and found["on"] == self._on and found["milliseconds"].keys() >= set(sides)

    def slower(self, point: Point, times: float) -> set[str]:
        """Settings of peers that took more than so many times their fastest for the longest of the shorter prompts."""
        here = {**self._on, "source": None}  # peers do not depend on it
        known = [each for each in self.points.values() if {**each["on"], "source": None} == here and not each["batch"]]
        shorter = [each for each in known if each["tokens"] < point.tokens and len(each["milliseconds"]) > 2]
        if point.batch or not shorter:
            return set()
        last = max(shorter, key=lambda each: each["tokens"])
        first = {name: taken[0] for name, taken in last["milliseconds"].items()}
        families = last["families"]
        fastest = {
            family: min(first[name] for name in first if families[name] == family) for family in families.values()
        }
        return {name for name in first if first[name] > times * fastest[families[name]] and families[name] != OURS}

    def put(self, point: Point, measured: dict[str, Any]) -> None:
        """Replaces what there was of this point, and writes the file."""
        self.points[str(point)] = {
            "batch": point.batch,
            "tokens": point.tokens,
            "on": self._on,
            "date": circumstances()["date"],
            **measured,
        }
        if self._path is not None:
            fresh = self._path.with_suffix(".tmp")
            fresh.write_text(json.dumps({**self._here, "points": self.points}, indent=1) + "\n", encoding="utf-8")
            fresh.replace(self._path)

    @property
    def _on(self) -> dict[str, Any]:
        machine = self._here["machine"]
        return {
            **{name: self._here[name] for name in ("model", "threads", "source")},
            **{name: machine[name] for name in ("processor", "cores")},
        }


def source_version() -> str:
    """Names what is measured: Git's name of `src`, and of what has been changed in it since."""

    def git(*arguments: str) -> str:
        ran = subprocess.run(["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=False)
        return ran.stdout.strip()

    changes = git("diff", "HEAD", "--", "src")
    changed = f"+{hashlib.sha256(changes.encode()).hexdigest()[:8]}" if changes else ""
    return (git("rev-parse", "--short=12", "HEAD:src") or "unknown") + changed
