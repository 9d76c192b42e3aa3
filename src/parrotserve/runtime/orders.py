"""Turns orders into commands for engines: here prompts are rendered and tokenised, those that run ahead in parts."""

import asyncio
import logging
from collections.abc import Sequence

from parrotserve.engines.base import Cancel as CancelCommand
from parrotserve.engines.base import Capability, Command, EngineDescription, Pause, Release, Resume, Retain, Update
from parrotserve.errors import EngineFailed, ParrotError
from parrotserve.graph.decisions import (
    CancelSequence,
    CompleteSequence,
    PauseSequence,
    ReleasePrefix,
    ResumeSequence,
    RetainPrefix,
    UpdateSequence,
)
from parrotserve.graph.events import RequestEnded
from parrotserve.runtime.driver import Driver
from parrotserve.runtime.keeper import Extending, Order
from parrotserve.runtime.render import Opening, most_tokens, pieces_of
from parrotserve.sampling import Usage
from parrotserve.tenancy.directory import Directory

log = logging.getLogger(__name__)


class Orders:
    """Turns the machine's decisions into commands for the engine that is to carry them out."""

    def __init__(self, driver: Driver, directory: Directory) -> None:
        self._driver = driver
        self._directory = directory

    async def commands(self, order: Order, description: EngineDescription) -> Sequence[Command]:
        """The commands for an order. A request that cannot be rendered fails; the engine is told only to cancel it, if
        it was opened."""
        match order:
            case Opening() | Extending() | CompleteSequence():
                return await self._rendered(order, description)
            case CancelSequence():
                self._driver.aheads.end(order.request, order.epoch)
                return (CancelCommand(sequence=order.request, epoch=order.epoch),)
            case PauseSequence():
                return (Pause(sequence=order.request, epoch=order.epoch),)
            case ResumeSequence():
                return (Resume(sequence=order.request, epoch=order.epoch),)
            case RetainPrefix():
                return await self._retain(order, description)
            case ReleasePrefix():
                return (Release(key=order.key),)
            case UpdateSequence():
                return (self._update(order),) if Capability.UPDATE in description.capabilities else ()

    async def _retain(self, order: RetainPrefix, description: EngineDescription) -> Sequence[Command]:
        try:
            return await self._retained(order, description)
        except ParrotError:
            return ()  # for example, a transform does not fit its value: requests that begin so will fail by it
        except Exception:
            log.exception("what request %s begins with could not be rendered", order.request)
            return ()

    async def _retained(self, order: RetainPrefix, description: EngineDescription) -> Sequence[Command]:
        request = self._driver.machine.graph.requests.get(order.request)
        if request is None:
            return ()
        pieces = pieces_of(
            request.spec.segments,
            values={one.id: one.value or "" for one in request.inputs if one.ready},
            stream=frozenset(),
            delivered={},
        )
        renderer, published = self._driver.renderers[request.spec.model], self._directory.published_texts()
        tokens = await renderer.beginning(pieces[: order.segments], description)
        # All pieces are looked at: a text that extends beyond the boundary may be published as a whole.
        public = renderer.public_tokens(pieces, published) if published else 0
        return (Retain(key=order.key, salt=request.session.tenant, tokens=tokens, public=public),)

    def _update(self, order: UpdateSequence | CompleteSequence) -> Update:
        segments = self._driver.runs.segments_of
        return Update(
            sequence=order.request,
            epoch=order.epoch,
            objective=order.objective,
            precedence=order.precedence,
            stream=segments(order.request, order.stream),
            follow=segments(order.request, order.follow) if isinstance(order, UpdateSequence) else (),
        )

    async def _rendered(
        self, order: Opening | Extending | CompleteSequence, description: EngineDescription
    ) -> Sequence[Command]:
        try:
            if isinstance(order, Opening):
                return await self._open(order, description)
            return await self._go_on(order, description)
        except ParrotError as error:
            failure = error
        except Exception as error:
            log.exception("request %s could not be rendered", order.request)
            failure = EngineFailed(f"The prompt could not be rendered: {type(error).__name__}.")
        opened = not isinstance(order, Opening)
        usage = None if opened else Usage()
        self._driver.apply(RequestEnded(request=order.request, epoch=order.epoch, usage=usage, error=failure))
        return (CancelCommand(sequence=order.request, epoch=order.epoch),) if opened else ()

    async def _open(self, opening: Opening, description: EngineDescription) -> Sequence[Command]:
        renderer = self._driver.renderers[opening.model]
        command = await renderer.open(opening, description, published=self._directory.published_texts())
        most = most_tokens(command)
        if most is not None:
            self._driver.meter.sized(opening.request, min(most, description.context_length))
        if not opening.ahead:
            return (command,)
        self._driver.aheads.begin(opening, renderer.tokenizer, renderer.prompt(description))
        return (command, *await self._go_on(Extending(opening.request, opening.epoch), description))

    async def _go_on(self, order: Extending | CompleteSequence, description: EngineDescription) -> Sequence[Command]:
        """The commands that extend a sequence that runs ahead; all that is left if the order is to complete it."""
        sequence = self._driver.aheads.find(order.request, order.epoch)
        if sequence is None:
            return ()
        completes = isinstance(order, CompleteSequence)
        sequence.ordered = False
        if completes:
            self._driver.aheads.end(order.request)
        tell, written = sequence.complete if completes else sequence.go_on, self._driver.written(order.request)
        told = await asyncio.to_thread(tell, written) if sequence.is_long(written) else tell(written)
        if not completes:
            self._driver.catch_up(sequence)  # with text that arrived meanwhile
            return told
        most = sequence.sent + sum(len(one.tokens or ()) for one in told) + sequence.most_output
        self._driver.meter.sized(order.request, min(most, description.context_length))
        return (self._update(order), *told)
