"""The points that `benchmarks/engine.py` measures, and the targets for some of them."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from records import Records

OURS = "parrot"
PREFILLS = (512, 1024, 2048, 4096)
BATCHES = (1, 4, 16, 32, 64)
PREFIXES = (64, 1024, 2048, 4096)


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """A prefill (batch 0), or a decode step."""

    tokens: int
    """Tokens of the prompt, or of the shared prefix."""
    batch: int

    def __str__(self) -> str:
        return f"decode {self.batch}x{self.tokens}" if self.batch else f"prefill {self.tokens}"

    @classmethod
    def parse(cls, text: str) -> "Point":
        """`512` is a prefill, `16x2048` a decode step of 16 sequences over 2048 tokens. Raises ValueError."""
        batch, _, tokens = text.rpartition("x")
        return cls(int(tokens), int(batch or 0))

    @property
    def steps(self) -> int:
        """Decode steps in one measurement: fewer for large batches, whose steps take long."""
        return max(8, min(32, 256 // max(1, self.batch)))


@dataclass(frozen=True, slots=True)
class Target:
    """At `point`, the fastest side of `family` should take at least `ratio` times as long as ours."""

    point: Point
    family: str
    ratio: float


def _targets(family: str, ratios: dict[str, float]) -> list[Target]:
    return [Target(Point.parse(point), family, ratio) for point, ratio in ratios.items()]


TARGETS = (
    *_targets("llama.cpp", {"512": 2.3, "2048": 2.8, "4096": 4.0, "1x64": 1.05}),
    *_targets("llama.cpp", {"16x64": 2.0, "16x2048": 2.7, "64x64": 3.0, "64x2048": 3.6}),
    *_targets("vLLM", {"1024": 2.5, "1x64": 2.5, "16x64": 3.0, "16x2048": 3.5, "32x2048": 4.0}),
    *_targets("private", {"64x2048": 3.0, "64x4096": 4.0}),
)


def wanted(point: Point, family: str) -> float | None:
    """The target ratio at a point, if there is one."""
    return next((each.ratio for each in TARGETS if each.point == point and each.family == family), None)


def must_show() -> list[Point]:
    """The points that have targets."""
    return in_order(target.point for target in TARGETS)


def grid() -> list[Point]:
    """Prefills of all lengths, and decode steps of all batch sizes over all prefix lengths."""
    prefills = [Point(tokens, 0) for tokens in PREFILLS]
    return in_order([*prefills, *(Point(tokens, batch) for tokens in PREFIXES for batch in BATCHES)])


def in_order(points: Iterable[Point]) -> list[Point]:
    """Prefills first, then decode steps by prefix length, since setting up a prefix takes most of the time."""
    return sorted(set(points), key=lambda point: (point.batch > 0, point))


class PointRecords(Records):
    """What was measured of each side at each point."""

    def complete(self, point: Point, sides: list[str]) -> bool:
        """Whether all of these sides were measured at the point, with the same source on the same machine."""
        return self.has(str(point)) and self.points[str(point)]["milliseconds"].keys() >= set(sides)

    def slower(self, point: Point, times: float) -> set[str]:
        """Settings that took more than `times` times as long as the peer's fastest for the next shorter prompt."""
        here = {**self.on, "source": None}  # peers do not depend on our source
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

    def add(self, point: Point, measured: dict[str, Any]) -> None:
        """Record a point in place of what there was of it, and write the file."""
        self.put(str(point), {"batch": point.batch, "tokens": point.tokens, **measured})
