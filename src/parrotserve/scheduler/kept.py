"""Engines that are kept for requests which have room nowhere, so that who is behind them can go on elsewhere.

A request that is big waits until enough of others' has ended on one engine. If all waited with it, the other engines
would run empty; if nobody did, those who are small would take what becomes free, for ever.
"""

from collections.abc import Iterator

from parrotserve.graph.objects import Request
from parrotserve.scheduler.load import EngineLoad

_MOST = 8
"""Requests that others go past at a time: each is looked at in every pass."""


class Kept:
    """An engine for each such request of one model, and a request for each such engine."""

    def __init__(self) -> None:
        self._engines: dict[Request, EngineLoad] = {}

    def __iter__(self) -> Iterator[Request]:
        return iter(list(self._engines))

    @property
    def many(self) -> bool:
        """Whether no more may be kept."""
        return len(self._engines) >= _MOST

    def keep(self, load: EngineLoad, request: Request) -> None:
        """Others that are waited for take no room there until this one has some, there or elsewhere."""
        self._engines[request] = load

    def drop(self, request: Request) -> None:
        """It waits for room no more, if it did."""
        self._engines.pop(request, None)

    def lose(self, load: EngineLoad) -> None:
        """The engine is gone."""
        self._engines = {request: one for request, one in self._engines.items() if one is not load}

    def holder(self, load: EngineLoad) -> Request | None:
        """For whom an engine is kept."""
        return next((request for request, one in self._engines.items() if one is load), None)
