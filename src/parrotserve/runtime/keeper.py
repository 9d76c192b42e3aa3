"""The keeper of one engine: starts it, talks to it, notices when it dies or hangs, and restarts it."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from parrotserve.engines import base
from parrotserve.engines.pulse import Pulse
from parrotserve.errors import EngineFailed, EngineRefused, ModelError, ParrotError, PullFailed
from parrotserve.graph.decisions import EngineDecision
from parrotserve.ids import EngineId, RequestId
from parrotserve.runtime.render import Opening

log = logging.getLogger(__name__)

_MOST_DOUBLINGS = 32
"""Maximum number of times a pause is doubled. More would exceed any bound on it, and in the end overflow a float."""
_MOST_AT_ONCE = 32
"""Orders that are sent together: enough for an engine to see shared prefixes, few enough that the first start soon."""


@dataclass(frozen=True, slots=True)
class Extending:
    """The order to send an engine more of the inputs of a request that runs ahead."""

    request: RequestId
    epoch: int


Order = Opening | Extending | EngineDecision
"""What an engine is to do, in the machine's terms."""


class KeeperState(StrEnum):
    """The state of an engine's keeper."""

    STARTING = "starting"
    UP = "up"
    RESTARTING = "restarting"
    FAILED = "failed"
    """Given up: orders are refused, and starts are attempted only at long intervals."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeeperPolicy:
    """How patient a keeper is; times in seconds."""

    heartbeat: float = base.HEARTBEAT_SECONDS
    missed_heartbeats: int = base.MISSED_HEARTBEATS
    stuck_after: float = 300.0
    """An engine that sends heartbeats and has work, but makes no step for this long, counts as hung too."""
    start_timeout: float = 300.0
    start_attempts: int = 3
    """Failed starts in a row before the keeper gives up."""
    fetch_attempts: int = 60
    """The same where the engine's model cannot be fetched: with the pauses below, some five minutes, as networks often
    come back by themselves."""
    first_backoff: float = 0.2
    longest_backoff: float = 5.0
    settled_after: float = 10.0
    """An engine that dies after being up for at least this long is restarted at once."""
    first_retry: float = 10.0
    """Pause between giving up and the next attempt; doubled after each failed attempt, up to `longest_retry`."""
    longest_retry: float = 300.0
    retry_jitter: float = 0.2
    """Largest fraction by which such a pause is randomly shortened, so that engines that failed together do not all
    restart together."""

    def backoff(self, failures: int) -> float:
        """The pause after this many failures in a row."""
        return 0.0 if failures <= 1 else _doubled(self.first_backoff, failures - 2, self.longest_backoff)

    def retry_pause(self, retries: int, chance: float) -> float:
        """The pause of an engine that is given up, after `retries` further attempts; `chance` is from 0 to 1."""
        return _doubled(self.first_retry, retries, self.longest_retry) * (1.0 - self.retry_jitter * chance)


class Office(Protocol):
    """What a keeper reports to, and asks for commands."""

    def joined(self, engine: EngineId, description: base.EngineDescription) -> None: ...
    def lost(self, engine: EngineId, reason: str) -> None: ...
    def given_up(self, engine: EngineId, error: ParrotError) -> None: ...
    def refuse(self, engine: EngineId, order: Order, error: ParrotError) -> None:
        """Report an order that no engine will carry out, and the reason."""
        ...

    def heard(self, engine: EngineId, events: Sequence[base.Event]) -> None:
        """Handle an engine's events. Raises `EngineFailed` if the engine broke the contract."""
        ...

    async def commands(self, order: Order, description: base.EngineDescription) -> Sequence[base.Command]:
        """The commands for an order; none if there is nothing to send."""
        ...


class EngineKeeper:
    """Keeps one engine up until it is closed. Owned by one event loop."""

    def __init__(
        self,
        engine: EngineId,
        model: str,
        make: Callable[[], Awaitable[base.Engine]],
        office: Office,
        *,
        policy: KeeperPolicy,
    ) -> None:
        """`make` makes the engine as soon as its model is there, which may take minutes. It raises the errors of
        loading the model."""
        self.engine = engine
        self.model = model
        self.state = KeeperState.STARTING
        self.description: base.EngineDescription | None = None
        self.heartbeat = base.Heartbeat()
        self.restarts = 0
        self.error: ParrotError | None = None
        """Why the last start failed; None once the engine is up."""
        self._retry_at = 0.0
        self._make = make
        self._office = office
        self._policy = policy
        self._orders: asyncio.Queue[Order] = asyncio.Queue()
        self._heard = False
        """Whether the engine has sent any events since the last check."""
        self._decided = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the task that keeps the engine up."""
        self._task = asyncio.get_running_loop().create_task(self._keep(), name=f"keeper of {self.engine}")

    async def wait_started(self) -> None:
        """Wait until the engine is up for the first time. Raises its error if it is given up."""
        await self._decided.wait()
        if self.state is KeeperState.FAILED and self.error is not None:
            raise self.error

    @property
    def retry_after(self) -> float | None:
        """Seconds until the next attempt to start an engine that is given up (0: now); None for others."""
        if self.state is not KeeperState.FAILED:
            return None
        return max(0.0, self._retry_at - asyncio.get_running_loop().time())

    def order(self, order: Order) -> None:
        """Pass on an order. It is dropped if the engine is down: the machine has been told of the loss."""
        if self.state is KeeperState.UP:
            self._orders.put_nowait(order)
        elif self.error is not None and self.state is KeeperState.FAILED:
            # Deferred: orders arrive while the machine's decisions are being carried out.
            why = EngineFailed(f"No engine for the model could be started: {self.error.message}", engine=self.engine)
            asyncio.get_running_loop().call_soon(self._office.refuse, self.engine, order, why)

    async def close(self) -> None:
        """End the engine."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.state = KeeperState.CLOSED

    async def _keep(self) -> None:
        """Start the engine again and again: after short pauses as long as that may help, then at long intervals."""
        refusals = deaths = retries = 0
        while True:
            given_up = self.state is KeeperState.FAILED
            if given_up or refusals >= self._most_attempts or _hopeless(self.error):
                await self._pause(self._policy.retry_pause(retries, random.random()))
                retries += 1
            else:
                await asyncio.sleep(self._policy.backoff(max(refusals, deaths)))
            lived = await self._live()
            if lived is None:
                refusals += 1
                continue
            settled = lived >= self._policy.settled_after
            # An engine that comes up and dies at once counts like one that does not come up.
            refusals, deaths, retries = 0, 1 if settled else deaths + 1, 0 if settled else retries
            self.restarts += 1

    @property
    def _most_attempts(self) -> int:
        unfetched = isinstance(self.error, PullFailed)
        return self._policy.fetch_attempts if unfetched else self._policy.start_attempts

    async def _pause(self, seconds: float) -> None:
        """Be in the state FAILED (given up) for this long."""
        assert self.error is not None
        self._retry_at = asyncio.get_running_loop().time() + seconds
        if self.state is KeeperState.FAILED:
            log.warning("engine %s is tried again in %.0f s", self.engine, seconds)
        else:
            self.state = KeeperState.FAILED
            self._decided.set()
            log.error("engine %s is given up, and tried again in %.0f s: %s", self.engine, seconds, self.error)
            self._office.given_up(self.engine, self.error)
        await asyncio.sleep(seconds)

    async def _live(self) -> float | None:
        """Run one engine from its start to its loss. Returns the seconds it was up; None, and sets `error`, if it did
        not come up."""
        loop = asyncio.get_running_loop()
        try:
            engine = await self._made()
            if engine is None:
                return None
            try:
                description = await self._start(engine)
                if description is None:
                    return None
                began = loop.time()
                await self._run(engine, description)
                return loop.time() - began
            finally:
                await engine.close()
        except Exception as error:
            log.exception("the keeper of engine %s", self.engine)
            self.error = EngineFailed(f"Engine {self.engine} cannot be kept up: {_words(error)}.", engine=self.engine)
            return None

    async def _made(self) -> base.Engine | None:
        """The engine. Returns None, and sets `error`, if its model cannot be had."""
        try:
            return await self._make()
        except ParrotError as error:
            self.error = error
            log.warning("engine %s did not start: %s", self.engine, error)
            return None

    async def _start(self, engine: base.Engine) -> base.EngineDescription | None:
        """Start the engine. Returns None, and sets `error`, if it did not come up."""
        try:
            async with asyncio.timeout(self._policy.start_timeout):
                return await engine.start()
        except TimeoutError as error:
            self.error = EngineFailed(f"Engine {self.engine} did not start within {self._policy.start_timeout:g} s.")
            self.error.__cause__ = error
        except ParrotError as error:
            self.error = error
        except Exception as error:
            self.error = EngineFailed(
                f"Engine {self.engine} could not be started: {_words(error)}.", engine=self.engine
            )
            self.error.__cause__ = error
        log.warning("engine %s did not start: %s", self.engine, self.error)
        return None

    async def _run(self, engine: base.Engine, description: base.EngineDescription) -> None:
        """Serve orders and events until the engine is lost."""
        # The cache is taken to be empty until the first heartbeat.
        empty = base.Heartbeat(free_pages=description.cache_tokens // description.page_tokens)
        self.description, self.heartbeat, self.error = description, empty, None
        self._orders = asyncio.Queue()
        # A warning after a restart: whoever saw the warning of the loss should see that the engine is back.
        log.log(logging.INFO if self.state is KeeperState.STARTING else logging.WARNING, "engine %s is up", self.engine)
        self.state = KeeperState.UP
        self._office.joined(self.engine, description)
        self._decided.set()
        reason = "its keeper was closed"
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send(engine, description))
                group.create_task(self._receive(engine))
                group.create_task(self._watch())
        except* EngineFailed as failed:
            reason = str(failed.exceptions[0])
            log.warning("engine %s is lost: %s", self.engine, reason)
        except* Exception as failed:
            reason = f"an unexpected error ({_words(failed.exceptions[0])})"
            log.exception("engine %s is lost", self.engine)
        finally:
            self.state = KeeperState.RESTARTING
            self._office.lost(self.engine, reason)

    async def _send(self, engine: base.Engine, description: base.EngineDescription) -> None:
        while True:
            orders = [await self._orders.get()]
            while len(orders) < _MOST_AT_ONCE and not self._orders.empty():
                orders.append(self._orders.get_nowait())
            wanted: list[tuple[Order, base.Command]] = []
            for number, order in enumerate(orders):
                if number:
                    # Tokenising prompts takes time: let streams proceed in between.
                    await asyncio.sleep(0)
                wanted += [(order, command) for command in await self._office.commands(order, description)]
            if wanted:
                await self._hand_over(engine, wanted)

    async def _hand_over(self, engine: base.Engine, wanted: Sequence[tuple[Order, base.Command]]) -> None:
        """Send all commands at once. If that fails, send them one by one, so that one bad command affects no other."""
        try:
            await engine.send([command for _, command in wanted])
        except EngineFailed:
            raise
        except Exception:
            for order, command in wanted:
                try:
                    await engine.send([command])
                except EngineFailed:
                    raise
                except Exception as error:
                    log.exception("engine %s cannot be sent request %s", self.engine, order.request)
                    refusal = EngineFailed(f"The request cannot be sent to an engine: {_words(error)}.")
                    self._office.refuse(self.engine, order, refusal)

    async def _receive(self, engine: base.Engine) -> None:
        async for events in engine.events():
            for event in events:
                if isinstance(event, base.Heartbeat):
                    self.heartbeat = event
            self._heard = True
            ended = next((number for number, event in enumerate(events) if isinstance(event, base.SequenceEnded)), 0)
            if ended:
                # Deliver the text to those who wait for it before handling the end of its request.
                self._office.heard(self.engine, events[:ended])
                await asyncio.sleep(0)
            self._office.heard(self.engine, events[ended:])
        raise EngineFailed(f"Engine {self.engine} ended.", engine=self.engine)

    async def _watch(self) -> None:
        """Raise `EngineFailed` once the engine hangs. For engines of all kinds; the handle of an engine that has a
        process of its own also watches it, and kills it."""
        policy, self._heard = self._policy, True  # its start was a sign of life
        pulse = Pulse(heartbeat=policy.heartbeat, stuck_after=policy.stuck_after, missed=policy.missed_heartbeats)
        while True:
            await asyncio.sleep(policy.heartbeat)
            complaint, self._heard = pulse.look(self.heartbeat, alive=self._heard), False
            if complaint:
                raise EngineFailed(f"Engine {self.engine} hangs: {complaint}.", engine=self.engine)


def _doubled(first: float, times: int, most: float) -> float:
    return min(first * 2.0 ** min(times, _MOST_DOUBLINGS), most)


def _hopeless(error: ParrotError | None) -> bool:
    """Whether another attempt soon would fail the same way: the model cannot be read, or there is too little memory."""
    return isinstance(error, ModelError | EngineRefused) and not isinstance(error, PullFailed)


def _words(error: Exception) -> str:
    # Not `repr(error)`, which may contain the data at fault: a prompt.
    return f"{type(error).__name__}: {error}"
