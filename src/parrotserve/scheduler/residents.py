"""A model of an engine's cache: the prefixes of requests placed there, less those that it has evicted since.

Engines do not report evictions. They keep what sequences hold and evict the rest, least recently used first, leaves
before their parents. This model does the same with estimated tokens. Where it is wrong, a prefix is computed again.
"""

from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from parrotserve.analysis.prefix import Boundary
from parrotserve.ids import EngineId

Index = dict[bytes, dict[EngineId, None]]
"""Engines on which a prefix is resident, by its hash."""


@dataclass(slots=True)
class _Held:
    count: int
    tokens: float


class LettingGo:
    """Counts the tokens that become free as running requests release their prefixes one after the other."""

    def __init__(self, held: Mapping[bytes, _Held], needed: Set[bytes]) -> None:
        self._held = held
        self._needed = needed
        self._gone: Counter[bytes] = Counter()

    def freed(self, boundaries: Sequence[Boundary]) -> float:
        """Tokens that become free once a request with these boundaries, too, releases them."""
        tokens = 0.0
        for boundary in boundaries:
            self._gone[boundary.hash] += 1
            held = self._held[boundary.hash]
            if self._gone[boundary.hash] == held.count and boundary.hash not in self._needed:
                tokens += held.tokens
        return tokens


class Residents:
    """Prefixes in one engine's cache. Every operation takes O(boundaries)."""

    def __init__(self, engine: EngineId, capacity: float, index: Index) -> None:
        """`index` is shared by all engines and updated by this object."""
        self._engine = engine
        self._capacity = capacity
        self._index = index
        self._held: dict[bytes, _Held] = {}
        self._idle: OrderedDict[bytes, float] = OrderedDict()
        self.held_tokens = 0.0
        """Tokens of prefixes that running requests hold, each counted once."""
        self._idle_tokens = 0.0

    def hold(self, boundaries: Sequence[Boundary], tokens_per_char: float) -> None:
        """Hold the prefix of a request that starts or resumes."""
        before = 0.0
        for boundary in boundaries:
            held = self._held.get(boundary.hash)
            if held is not None:
                held.count += 1
            else:
                tokens = self._idle.pop(boundary.hash, None)
                if tokens is None:
                    tokens = (boundary.chars - before) * tokens_per_char
                    self._index.setdefault(boundary.hash, {})[self._engine] = None
                else:
                    self._idle_tokens -= tokens
                self._held[boundary.hash] = _Held(1, tokens)
                self.held_tokens += tokens
            before = boundary.chars

    def release(self, boundaries: Sequence[Boundary], *, staying: int) -> None:
        """Release the prefix of a request that ended or is paused. Of what it alone held, the first `staying`
        boundaries stay resident until they are evicted."""
        for number, boundary in reversed(list(enumerate(boundaries))):
            held = self._held[boundary.hash]
            held.count -= 1
            if not held.count:
                del self._held[boundary.hash]
                self.held_tokens -= held.tokens
                if number < staying:
                    self._idle[boundary.hash] = held.tokens
                    self._idle_tokens += held.tokens
                else:
                    self._gone(boundary.hash)

    def make_room(self, used: float) -> None:
        """Evict idle prefixes until they fit into what `used` tokens, held prefixes included, leave of the cache."""
        while self._idle and self._idle_tokens > self._capacity - used:
            boundary, tokens = self._idle.popitem(last=False)
            self._idle_tokens -= tokens
            self._gone(boundary)

    def found(self, boundaries: Sequence[Boundary]) -> float:
        """Characters of the longest resident prefix."""
        for boundary in reversed(boundaries):
            if boundary.hash in self._held or boundary.hash in self._idle:
                return boundary.chars
        return 0.0

    def held(self, boundaries: Sequence[Boundary]) -> float:
        """Characters of the longest prefix that running requests hold, which takes no further room."""
        for boundary in reversed(boundaries):
            if boundary.hash in self._held:
                return boundary.chars
        return 0.0

    def letting_go(self, needed: Sequence[Boundary]) -> "LettingGo":
        """Counter of what running requests would free for a request that needs the boundaries `needed`."""
        return LettingGo(self._held, {boundary.hash for boundary in needed})

    def clear(self) -> None:
        """Forget everything: the engine is gone."""
        for boundary in (*self._held, *self._idle):
            self._gone(boundary)
        self._held.clear()
        self._idle.clear()
        self.held_tokens = self._idle_tokens = 0.0

    def check_integrity(self, running: Sequence[Sequence[Boundary]]) -> None:
        """Check against the boundaries of running requests. Raises `AssertionError`."""
        counts: dict[bytes, int] = {}
        for boundaries in running:
            for boundary in boundaries:
                counts[boundary.hash] = counts.get(boundary.hash, 0) + 1
        assert counts == {key: held.count for key, held in self._held.items()}, (
            "held prefixes are not those of requests"
        )
        assert abs(self.held_tokens - sum(held.tokens for held in self._held.values())) < 1e-3, (
            "tokens of held prefixes"
        )
        assert abs(self._idle_tokens - sum(self._idle.values())) < 1e-3, "tokens of idle prefixes"
        assert not self._held.keys() & self._idle.keys(), "a prefix is held and idle"
        known = {key for key, engines in self._index.items() if self._engine in engines}
        assert known == self._held.keys() | self._idle.keys(), "resident prefixes are not those that can be found"

    def _gone(self, boundary: bytes) -> None:
        engines = self._index[boundary]
        del engines[self._engine]
        if not engines:
            del self._index[boundary]
