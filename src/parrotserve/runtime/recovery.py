"""Bringing back the sessions of the journal when the service starts."""

import logging

import msgspec

from parrotserve.errors import ParrotError
from parrotserve.ids import shown
from parrotserve.models.pull import Progress
from parrotserve.runtime.driver import Driver
from parrotserve.runtime.fleet import Fleet
from parrotserve.runtime.gate import Gate
from parrotserve.store.journal import Journal
from parrotserve.store.recovery import Recovered, recovered

log = logging.getLogger(__name__)


async def recover(
    journal: Journal, driver: Driver, fleet: Fleet, gate: Gate, *, progress: Progress | None = None
) -> int:
    """Bring back all sessions of a journal, loading models that they name if they may be served, and record from now
    on. Returns the number of sessions. One that cannot come back stays in the journal, for a service that has its
    models, unless a new one takes its id.

    Raises `ServiceUnavailable` if the journal cannot be read.
    """
    known, back = list(journal.sessions()), 0
    driver.recorder.begin(journal)
    for session, entries in known:
        try:
            found = recovered(entries)
            await _bring_back(found, driver, fleet, gate, progress)
            back += 1
        except (msgspec.DecodeError, ValueError) as error:
            log.error("session %s in %s cannot be read: %s", shown(session), journal.path, error)
            driver.recorder.leaves(session)
        except ParrotError as error:
            log.error("session %s in %s cannot go on: %s", shown(session), journal.path, error)
            driver.recorder.leaves(session)
    return back


async def _bring_back(found: Recovered, driver: Driver, fleet: Fleet, gate: Gate, progress: Progress | None) -> None:
    models = await fleet.require_all(found.models, progress=progress)
    gate.restore(found)
    for model in models.values():
        fleet.start_engines(model)
