"""The native engine without sharing, for measurements: `python private_engine.py`, spoken to over its pipes.

Sixty-four private prefills of one prefix take minutes, and leave what one of them leaves. So it is prefilled once, by
a sequence under the salt `KEPT`, and whoever comes under the salt `COPYING` finds a copy of those pages, its own:
attention reads as much memory, at as many places, as if each had computed them.
"""

import sys
from collections.abc import Sequence
from itertools import takewhile

import msgspec

from parrotserve.engines.base import EngineDescription
from parrotserve.engines.native.backend import Backend
from parrotserve.engines.native.build import build_engine
from parrotserve.engines.native.cache import NaiveCache
from parrotserve.engines.native.kernels import KernelsBackend
from parrotserve.engines.native.loop import NativeCore
from parrotserve.engines.native.settings import PAGE_TOKENS, Launch
from parrotserve.engines.worker import run_worker

KEPT, COPYING = "kept", "copying"


class CopyingCache(NaiveCache):
    """Shares no page. Where a `KvCache` would share those of the kept prefix, it copies them."""

    def __init__(self, backend: Backend, pages: int) -> None:
        super().__init__(pages, PAGE_TOKENS)
        assert isinstance(backend, KernelsBackend)
        self._backend = backend
        self._tokens: list[int] = []
        self._pages: list[int] = []

    def acquire(self, salt: str, tokens: Sequence[int], held: Sequence[int] = ()) -> list[int]:
        """A copy of as much of the kept prefix as this begins with; nothing for who holds pages already."""
        if salt != COPYING or held:
            return []
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(self._tokens, tokens, strict=False)))
        source = self._pages[: same // PAGE_TOKENS]
        target = self.allocate(len(source)) or []
        self._backend.copy_pages(source[: len(target)], target)
        return target

    def publish(self, salt: str, tokens: Sequence[int], pages: Sequence[int]) -> list[int]:
        """Under `KEPT`, what was published last is kept, and what was kept before is not any more."""
        if salt == KEPT:
            for page in pages:
                self._pool.references[page] += 1
            self.free(self._pages)
            self._tokens, self._pages = list(tokens[: len(pages) * PAGE_TOKENS]), list(pages)
        return list(pages)


def _build(first_frame: bytes) -> tuple[EngineDescription, NativeCore]:
    return build_engine(msgspec.msgpack.decode(first_frame, type=Launch), make_cache=CopyingCache)


if __name__ == "__main__":
    sys.exit(run_worker(_build))
