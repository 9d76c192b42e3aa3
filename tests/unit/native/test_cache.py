"""What callers of the KV cache see."""

import pytest

from parrotserve.engines.native.cache import CacheStats, KvCache, NaiveCache
from parrotserve.engines.native.radix import Salt

PAGE = 4
TEXT = list(range(100, 140))


def publish(cache: KvCache, tokens: list[int], salt: str = "s", public: int = 0) -> list[int]:
    """A sequence that computes all its full pages, as one that found none."""
    pages = cache.allocate(len(tokens) // PAGE)
    assert pages is not None
    return cache.publish(Salt(salt, public), tokens, pages)


def store(cache: KvCache, tokens: list[int], salt: str = "s") -> list[int]:
    """The same, and it has ended."""
    pages = publish(cache, tokens, salt)
    cache.free(pages)
    return pages


def resident(cache: KvCache, tokens: list[int]) -> int:
    """How many pages of these tokens are there; they count as used just now."""
    pages = cache.acquire("s", tokens)
    cache.free(pages)
    return len(pages)


@pytest.fixture
def cache():
    cache = KvCache(8, PAGE)
    yield cache
    cache.check_integrity()


class TestSharing:
    def test_a_published_prefix_is_found(self, cache: KvCache):
        pages = publish(cache, TEXT[:12])
        assert cache.acquire("s", TEXT[:12]) == pages

    def test_the_longest_common_run_of_full_pages_is_found(self, cache: KvCache):
        pages = publish(cache, TEXT[:12])
        assert cache.acquire("s", [*TEXT[:9], 1, 2, 3]) == pages[:2]

    def test_a_partly_equal_page_is_not_shared(self, cache: KvCache):
        publish(cache, TEXT[:4])
        assert cache.acquire("s", TEXT[:3]) == []
        assert cache.acquire("s", [*TEXT[:3], 1]) == []

    def test_another_salt_shares_nothing(self, cache: KvCache):
        publish(cache, TEXT[:8])
        assert cache.acquire("other", TEXT[:8]) == []

    def test_public_pages_are_shared_by_all_and_what_follows_by_none(self, cache: KvCache):
        pages = publish(cache, TEXT[:16], "ann", public=9)
        assert cache.acquire(Salt("ann", 9), TEXT[:16]) == pages
        assert cache.acquire(Salt("bob", 9), TEXT[:16]) == pages[:2]
        # Continued from what it holds already, and with more of it public, nothing of Ann's is found either.
        assert cache.acquire(Salt("bob", 9), TEXT[:16], held=pages[:2]) == []
        assert cache.acquire(Salt("bob", 16), TEXT[:16]) == pages[:2]
        assert cache.acquire(Salt("bob", 3), TEXT[:16]) == []

    def test_tenants_that_go_on_alike_after_public_pages_have_pages_of_their_own(self, cache: KvCache):
        ann = publish(cache, TEXT[:12], "ann", public=4)
        bob = publish(cache, TEXT[:12], "bob", public=4)
        assert ann[0] == bob[0]
        assert set(ann[1:]).isdisjoint(bob[1:])
        assert cache.acquire(Salt("bob", 4), TEXT[:12]) == bob

    def test_a_private_prefix_is_not_found_by_making_it_public_later(self, cache: KvCache):
        publish(cache, TEXT[:8], "ann")
        assert cache.acquire(Salt("ann", 8), TEXT[:8]) == []
        assert cache.acquire(Salt("bob", 8), TEXT[:8]) == []

    def test_equal_pages_after_different_beginnings_are_different_pages(self, cache: KvCache):
        first = publish(cache, [*TEXT[:4], 1, 2, 3, 4])
        second = publish(cache, [*TEXT[4:8], 1, 2, 3, 4])
        assert set(first).isdisjoint(second)

    def test_pages_stay_cached_when_their_sequence_ends(self, cache: KvCache):
        pages = store(cache, TEXT[:8])
        assert cache.stats() == CacheStats(total=8, free=6, used=0, cached=2, retained=0)
        assert cache.acquire("s", TEXT[:8]) == pages

    def test_unpublished_pages_are_free_when_given_back(self, cache: KvCache):
        pages = cache.allocate(3)
        assert pages is not None
        cache.free(pages)
        assert cache.stats().free == 8

    def test_a_sequence_goes_on_finding_pages_behind_those_it_holds(self, cache: KvCache):
        pages = store(cache, TEXT[:12])
        held = cache.acquire("s", TEXT[:4])
        assert cache.acquire("s", TEXT[:16], held) == pages[1:]
        assert cache.stats().used == 3

    def test_nothing_is_found_behind_a_page_that_is_not_published(self, cache: KvCache):
        store(cache, TEXT[:8])
        own = cache.allocate(1)
        assert own is not None
        assert cache.acquire("s", TEXT[:8], own) == []


class TestPublishing:
    def test_a_duplicate_is_replaced_by_the_page_that_was_first(self, cache: KvCache):
        first = publish(cache, TEXT[:8])
        assert publish(cache, TEXT[:8]) == first
        assert cache.stats().used == 2

    def test_only_the_new_part_is_added(self, cache: KvCache):
        first = publish(cache, TEXT[:4])
        second = publish(cache, TEXT[:8])
        assert second[0] == first[0]
        assert cache.stats().used == 2

    def test_the_last_partial_page_is_passed_through(self, cache: KvCache):
        pages = cache.allocate(2)
        assert pages is not None
        assert cache.publish("s", TEXT[:6], pages) == pages
        assert cache.acquire("s", TEXT[:8]) == pages[:1]

    def test_page_by_page_gives_what_publishing_at_once_gives(self, cache: KvCache):
        table = cache.allocate(3)
        assert table is not None
        for count in range(13):
            table = cache.publish("s", TEXT[:count], table)
        assert cache.acquire("s", TEXT[:12]) == table

    def test_two_sequences_that_generate_the_same_end_up_on_the_same_pages(self, cache: KvCache):
        one, two = cache.allocate(3), cache.allocate(3)
        assert one is not None
        assert two is not None
        for count in (4, 8, 12):
            one, two = cache.publish("s", TEXT[:count], one), cache.publish("s", TEXT[:count], two)
        assert one == two
        assert cache.stats().free == 5

    def test_publishing_nothing_leaves_no_trace(self, cache: KvCache):
        assert cache.publish("s", [], []) == []
        cache.check_integrity()

    def test_a_table_in_the_wrong_order_is_refused(self, cache: KvCache):
        pages = publish(cache, TEXT[:8])
        with pytest.raises(ValueError, match=f"Page {pages[0]} is published as number 0, not 1"):
            cache.publish("s", TEXT[:8], pages[::-1])

    def test_a_page_cannot_be_given_back_twice(self, cache: KvCache):
        pages = store(cache, TEXT[:4])
        with pytest.raises(ValueError, match=f"Page {pages[0]} is given back, but nobody holds it"):
            cache.free(pages)


class TestEviction:
    def test_more_than_available_changes_nothing(self, cache: KvCache):
        publish(cache, TEXT[:8])
        store(cache, TEXT[8:16])
        before = cache.stats()
        assert cache.allocate(7) is None
        assert cache.stats() == before

    def test_everything_unheld_is_available(self, cache: KvCache):
        publish(cache, TEXT[:8])
        store(cache, TEXT[8:16])
        assert cache.available() == 6
        assert len(cache.allocate(6) or []) == 6

    def test_the_least_recently_used_goes_first(self, cache: KvCache):
        for start in (0, 8, 16, 24):
            store(cache, TEXT[start : start + 8])
        cache.free(cache.acquire("s", TEXT[:8]))
        cache.allocate(2)
        assert [resident(cache, TEXT[start : start + 8]) for start in (0, 8, 16, 24)] == [2, 0, 2, 2]

    def test_leaves_go_before_what_leads_to_them(self, cache: KvCache):
        store(cache, TEXT[:32])
        cache.allocate(3)
        assert resident(cache, TEXT[:32]) == 5

    def test_a_held_leaf_keeps_the_whole_path(self, cache: KvCache):
        pages = publish(cache, TEXT[:32])
        cache.free(pages[:7])
        assert cache.available() == 0
        assert cache.stats().used == 8

    def test_pages_in_use_are_never_evicted(self, cache: KvCache):
        store(cache, TEXT[:16])
        held = cache.acquire("s", TEXT[:8])
        assert set(cache.allocate(6) or []).isdisjoint(held)
        assert resident(cache, TEXT[:16]) == 2


class TestRetention:
    def test_retained_prefixes_are_evicted_last(self, cache: KvCache):
        store(cache, TEXT[:16])
        cache.retain("k", "s", TEXT[:16])
        store(cache, TEXT[16:32])
        assert cache.stats().retained == 4
        cache.allocate(4)
        assert resident(cache, TEXT[:16]) == 4
        assert resident(cache, TEXT[16:32]) == 0

    def test_when_nothing_else_is_left_they_go_too(self, cache: KvCache):
        store(cache, TEXT[:16])
        cache.retain("k", "s", TEXT[:16])
        assert len(cache.allocate(8) or []) == 8

    def test_a_prefix_that_is_public_in_part_is_retained_where_its_sequences_have_it(self, cache: KvCache):
        cache.free(publish(cache, TEXT[:12], "ann", public=8))
        cache.retain("k", Salt("ann", 8), TEXT[:12])
        assert cache.stats().retained == 3
        cache.retain("k", Salt("bob", 8), TEXT[:12])
        assert cache.stats().retained == 2

    def test_a_prefix_may_be_retained_before_it_is_resident(self, cache: KvCache):
        cache.retain("k", "s", TEXT[:8])
        store(cache, TEXT[:8])
        store(cache, TEXT[8:32])
        assert cache.stats().retained == 2
        cache.allocate(6)
        assert resident(cache, TEXT[:8]) == 2

    def test_one_that_was_evicted_is_retained_again_when_it_comes_back(self, cache: KvCache):
        cache.retain("k", "s", TEXT[:8])
        store(cache, TEXT[:8])
        cache.free(cache.allocate(8) or [])
        store(cache, TEXT[:8])
        assert cache.stats().retained == 2

    def test_what_follows_a_retained_prefix_is_not_retained(self, cache: KvCache):
        cache.retain("k", "s", TEXT[:8])
        store(cache, TEXT[:16])
        assert cache.stats() == CacheStats(total=8, free=4, used=0, cached=4, retained=2)

    def test_growing_what_a_key_retains_keeps_leaves_first(self, cache: KvCache):
        store(cache, TEXT[:16])
        cache.retain("a", "s", TEXT[:8])
        cache.retain("b", "s", TEXT[:16])
        cache.allocate(5)
        assert resident(cache, TEXT[:16]) == 3

    def test_release_makes_them_ordinary(self, cache: KvCache):
        store(cache, TEXT[:8])
        cache.retain("k", "s", TEXT[:8])
        cache.release("k")
        assert cache.stats() == CacheStats(total=8, free=6, used=0, cached=2, retained=0)

    def test_a_prefix_under_two_keys_is_retained_until_both_are_released(self, cache: KvCache):
        store(cache, TEXT[:8])
        cache.retain("a", "s", TEXT[:8])
        cache.retain("b", "s", TEXT[:4])
        cache.release("a")
        assert cache.stats().retained == 1

    def test_the_same_key_again_replaces_its_prefix(self, cache: KvCache):
        store(cache, TEXT[:16])
        cache.retain("k", "s", TEXT[:16])
        cache.retain("k", "s", TEXT[:4])
        assert cache.stats().retained == 1

    def test_less_than_a_page_and_unknown_keys_are_harmless(self, cache: KvCache):
        cache.retain("k", "s", TEXT[:3])
        cache.release("k")
        cache.release("k")
        assert cache.stats() == CacheStats(total=8, free=8, used=0, cached=0, retained=0)


class TestNaiveCache:
    def test_finds_nothing_and_keeps_nothing(self):
        cache = NaiveCache(8, PAGE)
        pages = cache.allocate(2)
        assert pages is not None
        assert cache.publish("s", TEXT[:8], pages) == pages
        assert cache.acquire("s", TEXT[:8]) == []
        cache.retain("k", "s", TEXT[:8])
        assert cache.allocate(7) is None
        cache.free(pages)
        cache.release("k")
        assert cache.stats() == CacheStats(total=8, free=8, used=0, cached=0, retained=0)
        cache.check_integrity()


@pytest.mark.parametrize(("pages", "page_tokens"), [(0, 16), (8, 0)])
def test_a_cache_that_can_hold_nothing_is_refused(pages: int, page_tokens: int):
    with pytest.raises(ValueError, match="at least one"):
        KvCache(pages, page_tokens)
