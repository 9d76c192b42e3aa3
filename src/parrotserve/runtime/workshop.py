"""Native calls that the service runs itself: each is a task in the sandbox, whose end is reported to the machine."""

import asyncio
import logging
from collections.abc import Callable

from parrotserve.errors import NativeCallFailed
from parrotserve.graph.decisions import RunCall
from parrotserve.graph.events import CallRan
from parrotserve.ids import CallId
from parrotserve.native_calls import written
from parrotserve.sandbox.limits import Job, Limits
from parrotserve.sandbox.pool import Sandbox

log = logging.getLogger(__name__)


class Workshop:
    """Runs calls until they end or are dropped. Owned by one event loop."""

    def __init__(self, limits: Limits, tell: Callable[[CallRan], None]) -> None:
        self._sandbox = Sandbox(limits)
        self._tell = tell
        self._tasks: dict[CallId, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    def run(self, call: RunCall) -> None:
        """Start a call; its value or error is passed to `tell`."""
        self._tasks[call.call] = asyncio.get_running_loop().create_task(self._run(call), name=f"call {call.call}")

    def drop(self, call: CallId) -> None:
        """End a call whose result nobody wants any more."""
        task = self._tasks.pop(call, None)
        if task is not None:
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End all calls and the sandbox."""
        for call in list(self._tasks):
            self.drop(call)
        await asyncio.gather(*self._ending, return_exceptions=True)
        await self._sandbox.close()

    async def _run(self, call: RunCall) -> None:
        function = call.sandboxed
        job = Job(
            source=function.source,
            name=function.name,
            file=function.file,
            line=function.line,
            arguments=written(function.arguments, call.values),
            seconds=function.seconds,
        )
        value = error = None
        try:
            value = await self._sandbox.run(job, tenant=call.tenant)
        except NativeCallFailed as failed:
            error = failed.message
        except Exception as failed:
            log.exception("native call %s could not be run", call.call)
            error = f"the service could not run it: {type(failed).__name__}"
        del self._tasks[call.call]
        self._tell(CallRan(call=call.call, value=value, error=error))
