"""The results file of a benchmark, written after every point, so that no measurement is lost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parrotserve.bench.circumstances import circumstances, source_version


def sources(points: Mapping[str, dict[str, Any]]) -> list[str]:
    """With which source points were measured, and when: for a page, one line for each git tree of `src`."""
    by_source: dict[str, list[str]] = {}
    for name, measured in points.items():
        by_source.setdefault(measured["on"]["source"], []).append(f"{name} ({measured['date'][:16]})")
    return [f"- `src` at tree `{source}`: {', '.join(names)}." for source, names in by_source.items()]


class Records:
    """Measured points by name. Those with the same source, machine and settings need not be measured again."""

    def __init__(self, path: Path | None, benchmark: str, *, seed: int, **settings: Any) -> None:
        self._path = path
        self._here = {"benchmark": benchmark, **settings, "source": source_version(), **circumstances(seed=seed)}
        machine = self._here["machine"]
        self.on = {name: self._here[name] for name in (*settings, "source")}
        """The settings, source and machine for which the figures of a point are valid."""
        self.on |= {name: machine[name] for name in ("processor", "cores")}
        self.points: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self.points = json.loads(path.read_text(encoding="utf-8"))["points"]

    def has(self, point: str) -> bool:
        """Whether a point was measured with the same source and settings on the same machine."""
        found = self.points.get(point)
        return found is not None and found["on"] == self.on

    def put(self, point: str, measured: dict[str, Any]) -> None:
        """Record a point in place of what there was of it, and write the file."""
        self.points[point] = {"on": self.on, "date": circumstances()["date"], **measured}
        if self._path is not None:
            fresh = self._path.with_suffix(".tmp")
            fresh.write_text(json.dumps({**self._here, "points": self.points}, indent=1) + "\n", encoding="utf-8")
            fresh.replace(self._path)
