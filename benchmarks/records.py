"""The file that a benchmark fills point by point: written after every one, so that nothing measured is lost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parrotserve.bench.circumstances import circumstances, source_version


def sources(points: Mapping[str, dict[str, Any]]) -> list[str]:
    """Of which source points were measured, and when: a line for each tree of `src`, for a page."""
    by_source: dict[str, list[str]] = {}
    for name, measured in points.items():
        by_source.setdefault(measured["on"]["source"], []).append(f"{name} ({measured['date'][:16]})")
    return [f"- `src` at tree `{source}`: {', '.join(names)}." for source, names in by_source.items()]


class Records:
    """Points by their names. Those of the same source, machine and settings need not be measured again."""

    def __init__(self, path: Path | None, benchmark: str, *, seed: int, **settings: Any) -> None:
        self._path = path
        self._here = {"benchmark": benchmark, **settings, "source": source_version(), **circumstances(seed=seed)}
        machine = self._here["machine"]
        self.on = {name: self._here[name] for name in (*settings, "source")}
        """What a point's figures hold for."""
        self.on |= {name: machine[name] for name in ("processor", "cores")}
        self.points: dict[str, dict[str, Any]] = {}
        if path is not None and path.exists():
            self.points = json.loads(path.read_text(encoding="utf-8"))["points"]

    def has(self, point: str) -> bool:
        """Whether it was measured, of the same source on the same machine."""
        found = self.points.get(point)
        return found is not None and found["on"] == self.on

    def put(self, point: str, measured: dict[str, Any]) -> None:
        """Replaces what there was of this point, and writes the file."""
        self.points[point] = {"on": self.on, "date": circumstances()["date"], **measured}
        if self._path is not None:
            fresh = self._path.with_suffix(".tmp")
            fresh.write_text(json.dumps({**self._here, "points": self.points}, indent=1) + "\n", encoding="utf-8")
            fresh.replace(self._path)
