"""The sandbox: a few child processes, started when there is work, and whose turn it is."""

import asyncio
from collections import OrderedDict, deque

from parrotserve.errors import NativeCallFailed
from parrotserve.ids import TenantId
from parrotserve.sandbox.limits import Job, Limits
from parrotserve.sandbox.process import Child


class Sandbox:
    """Runs jobs in its children: the jobs of one tenant in order, and tenants in turn. Owned by one event loop."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._turns = _Turns(limits.processes)
        self._idle: list[Child] = []
        self._closed = False

    @property
    def idle(self) -> int:
        """Number of children that wait for work."""
        return sum(child.alive for child in self._idle)

    async def run(self, job: Job, *, tenant: TenantId) -> str:
        """The result as text. Raises `NativeCallFailed`. If cancelled, the job is ended at once."""
        await self._turns.take(tenant)
        try:
            return await self._run(job)
        finally:
            self._turns.give()

    async def close(self) -> None:
        """End the children that wait for work; busy ones end with the tasks that wait for them."""
        self._closed = True
        for child in self._idle:
            await child.end()
        self._idle.clear()

    async def _run(self, job: Job) -> str:
        child = self._take() or await Child.start(self._limits)
        answered = False
        try:
            result = await child.run(job)
            answered = True
            return result
        except NativeCallFailed:
            answered = True
            raise
        finally:
            if answered and child.alive and not self._closed:
                self._idle.append(child)
            else:
                # Also if the task was cancelled in the middle of a job.
                await asyncio.shield(child.end())

    def _take(self) -> Child | None:
        """A child that waits for work, if one is still alive."""
        while self._idle:
            child = self._idle.pop()
            if child.alive:
                return child
        return None


class _Turns:
    """A number of places, given to tenants in turn."""

    def __init__(self, places: int) -> None:
        self._free = places
        self._waiting: OrderedDict[TenantId, deque[asyncio.Future[None]]] = OrderedDict()

    async def take(self, tenant: TenantId) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(tenant, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give()  # the place was given just before the cancellation
            raise

    def give(self) -> None:
        while self._waiting:
            tenant, queue = self._waiting.popitem(last=False)
            turn = queue.popleft()
            if queue:
                self._waiting[tenant] = queue  # behind all other tenants
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1
