"""The exchanges that clients have open: those that wait for variables, and those that run native calls."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, closing

from parrotserve.graph.events import Wait, Waited
from parrotserve.ids import SessionId, TenantId, VariableId, owned
from parrotserve.protocol import CallOffer, Delta, Failure, Value, WaitSpec
from parrotserve.runtime.attachments import Attachments
from parrotserve.runtime.board import AT_ONCE
from parrotserve.runtime.driver import Driver
from parrotserve.runtime.ending import Ending

WaitEvent = Delta | Value | Failure


class Exchanges:
    """Opens exchanges, each of which suspends its session's lease. Owned by one event loop.

    Nothing is handed out before `committed` returns, so that a client never sees what a restart could undo.
    """

    def __init__(
        self, driver: Driver, attachments: Attachments, ending: Ending, committed: Callable[[], Awaitable[None]]
    ) -> None:
        self._driver = driver
        self._attachments = attachments
        self._ending = ending
        self._committed = committed

    def ask(self, session: SessionId, wait: Wait, tenant: TenantId) -> None:
        """Tell the machine that somebody waits for a variable. Raises its refusals, and `ServiceUnavailable` once
        exchanges were ended."""
        self._ending.check_there()
        self._driver.apply(Waited(session=owned(tenant, session), tenant=tenant, waits=(wait,)))

    async def watched(
        self, session: SessionId, waits: Sequence[WaitSpec], tenant: TenantId, *, offset: int = 0
    ) -> AsyncGenerator[WaitEvent, None]:
        """What these waits are to be told, until each has its value or failure; streams from character `offset` on."""
        owner = owned(tenant, session)
        with (
            self._ending.watching(),
            self._attachments.attached(owner, tenant) as gone,
            closing(self._driver.board.watch(owner)) as watch,
        ):
            for number, wait in enumerate(waits, 1):
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)  # let other tasks run; they may end the session
                    gone = gone or self._attachments.refusal(owner, tenant)
                variable = owned(tenant, VariableId(wait.variable))
                watch.read(variable, stream=wait.stream, offset=offset, timeout=wait.timeout, error=gone)
            while watch.reading:
                news = await watch.news()
                await self._committed()
                for event in news:
                    yield event

    async def offers(self, session: SessionId, tenant: TenantId) -> AsyncGenerator[CallOffer, None]:
        """Native calls for one client of a session, until the session ends."""
        owner = owned(tenant, session)
        with self._attachments.attached(owner, tenant):
            async with aclosing(self._driver.desk.connect(owner)) as offers:
                async for offer in offers:
                    await self._committed()
                    yield offer
