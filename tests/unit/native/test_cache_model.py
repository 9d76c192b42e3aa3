"""The KV cache against a naive model that keeps whole prefixes in a dictionary and searches them all."""

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from parrotserve.engines.native.cache import CacheStats, KvCache

PAGE = 2

Prefix = tuple[str, tuple[int, ...]]


@dataclass(eq=False)
class Sequence:
    """One caller: what it computes, and its table."""

    salt: str
    tokens: list[int]
    table: list[int]
    published: int = 0


@dataclass
class Model:
    """Resident prefixes with their page and the time of their last use; references by page."""

    pages: dict[Prefix, int] = field(default_factory=dict[Prefix, int])
    last_use: dict[Prefix, int] = field(default_factory=dict[Prefix, int])
    references: dict[int, int] = field(default_factory=dict[int, int])
    retained: dict[str, Prefix] = field(default_factory=dict[str, Prefix])
    clock: int = 0

    def is_retained(self, prefix: Prefix) -> bool:
        return any(
            salt == prefix[0] and tokens[: len(prefix[1])] == prefix[1] for salt, tokens in self.retained.values()
        )

    def held(self, prefix: Prefix) -> bool:
        """It, or one that continues it, has references."""
        return any(
            self.references[page]
            for (salt, tokens), page in self.pages.items()
            if salt == prefix[0] and tokens[: len(prefix[1])] == prefix[1]
        )

    def unheld(self) -> list[Prefix]:
        return [prefix for prefix in self.pages if not self.held(prefix)]

    def match(self, salt: str, tokens: list[int]) -> list[int]:
        found: list[int] = []
        for end in range(PAGE, len(tokens) + 1, PAGE):
            page = self.pages.get((salt, tuple(tokens[:end])))
            if page is None:
                break
            found.append(page)
        return found

    def touch(self, salt: str, tokens: tuple[int, ...]) -> None:
        """All that leads to a prefix is used now."""
        for end in range(0, len(tokens) + 1, PAGE):
            if (salt, tokens[:end]) in self.pages:
                self.last_use[salt, tokens[:end]] = self.clock

    def evict(self) -> int:
        leaves = [
            (salt, tokens)
            for salt, tokens in self.unheld()
            if not any(s == salt and t[: len(tokens)] == tokens and len(t) > len(tokens) for s, t in self.pages)
        ]
        victim = min(leaves, key=lambda prefix: (self.is_retained(prefix), self.last_use[prefix]))
        del self.last_use[victim]
        return self.pages.pop(victim)

    def drop(self, table: list[int]) -> None:
        prefix_of = {page: prefix for prefix, page in self.pages.items()}
        for page in table:
            self.references[page] -= 1
        for page in table:
            if page in prefix_of:
                self.touch(*prefix_of[page])
            elif not self.references[page]:
                del self.references[page]


salts = st.sampled_from(["a", "b"])
# Two letters and short texts: most of them share something.
texts = st.lists(st.integers(0, 1), max_size=11)


class CacheMachine(RuleBasedStateMachine):
    sequences = Bundle("sequences")

    @initialize(pages=st.integers(3, 14))
    def start(self, pages: int):
        self.total = pages
        self.cache = KvCache(pages, PAGE)
        self.model = Model()

    def allocate(self, count: int) -> list[int] | None:
        pages = self.cache.allocate(count)
        free = set(range(self.total)) - set(self.model.references)
        if count > len(free) + len(self.model.unheld()):
            assert pages is None
            return None
        evicted = {self.model.evict() for _ in range(count - len(free))}
        assert pages is not None
        assert len(set(pages)) == len(pages) == count
        assert evicted <= set(pages) <= free | evicted
        self.model.references.update(dict.fromkeys(pages, 1))
        return pages

    @rule(target=sequences, salt=salts, tokens=texts)
    def open(self, salt: str, tokens: list[int]):
        self.model.clock += 1
        expected = self.model.match(salt, tokens)
        found = self.cache.acquire(salt, tokens)
        assert found == expected
        for page in found:
            self.model.references[page] += 1
        sequence = Sequence(salt, tokens, found, published=len(found))
        fresh = self.allocate(-(-len(tokens) // PAGE) - len(found))
        if fresh is None:
            self.close(sequence)
            return multiple()
        sequence.table += fresh
        return sequence

    @rule(sequence=sequences, more=st.lists(st.integers(0, 1), min_size=1, max_size=3))
    def grow(self, sequence: Sequence, more: list[int]):
        pages = self.allocate(-(-(len(sequence.tokens) + len(more)) // PAGE) - len(sequence.table))
        if pages is not None:
            sequence.tokens = sequence.tokens + more
            sequence.table += pages

    @rule(sequence=sequences, data=st.data())
    def compute(self, sequence: Sequence, data: st.DataObject):
        self.model.clock += 1
        end = data.draw(st.integers(sequence.published * PAGE, len(sequence.tokens)))
        published = self.cache.publish(sequence.salt, sequence.tokens[:end], sequence.table)
        expected = list(sequence.table)
        for index in range(sequence.published, end // PAGE):
            prefix = (sequence.salt, tuple(sequence.tokens[: (index + 1) * PAGE]))
            own = sequence.table[index]
            expected[index] = self.model.pages.setdefault(prefix, own)
            if expected[index] != own:
                del self.model.references[own]
                self.model.references[expected[index]] += 1
        assert published == expected
        sequence.table, sequence.published = published, max(sequence.published, end // PAGE)

    @rule(sequence=sequences, data=st.data())
    def look_again(self, sequence: Sequence, data: st.DataObject):
        count = data.draw(st.integers(0, sequence.published))
        expected = self.model.match(sequence.salt, sequence.tokens)[count:]
        found = self.cache.acquire(sequence.salt, sequence.tokens, sequence.table[:count])
        assert found == expected
        self.cache.free(found)

    @rule(sequence=consumes(sequences), order=st.randoms(use_true_random=False))
    def end(self, sequence: Sequence, order):
        self.model.clock += 1
        order.shuffle(sequence.table)
        self.close(sequence)

    def close(self, sequence: Sequence) -> None:
        self.cache.free(sequence.table)
        self.model.drop(sequence.table)

    @rule(key=st.sampled_from(["k", "l"]), salt=salts, tokens=texts)
    def retain(self, key: str, salt: str, tokens: list[int]):
        self.release(key)
        self.cache.retain(key, salt, tokens)
        self.model.retained[key] = (salt, tuple(tokens[: len(tokens) // PAGE * PAGE]))
        self.model.clock += 1
        self.model.touch(*self.model.retained[key])

    @rule(key=st.sampled_from(["k", "l"]))
    def release(self, key: str):
        self.model.clock += 1
        self.cache.release(key)
        if key in self.model.retained:
            self.model.touch(*self.model.retained.pop(key))

    @invariant()
    def books_balance(self):
        self.cache.check_integrity()

    @invariant()
    def statistics_agree(self):
        unheld = self.model.unheld()
        free = self.total - len(self.model.references)
        assert self.cache.available() == free + len(unheld)
        assert self.cache.stats() == CacheStats(
            total=self.total,
            free=free,
            used=self.total - free - len(unheld),
            cached=len(unheld),
            retained=sum(map(self.model.is_retained, unheld)),
        )


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(stateful_step_count=40)
