"""Bringing back the sessions of the journal when the service starts."""

import logging
from collections.abc import Generator
from contextlib import contextmanager

import msgspec

from parrotserve.errors import ParrotError
from parrotserve.ids import SessionId, shown
from parrotserve.models.pull import Progress
from parrotserve.runtime.catalog import Models
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
    known, ready = list(journal.sessions()), list[tuple[Recovered, Models]]()
    driver.recorder.begin(journal)
    for session, entries in known:
        with _left_if_it_cannot(session, journal, driver):
            found = recovered(entries)
            ready.append((found, await fleet.require_all(found.models, progress=progress)))
    # Only now that all models are there, which may take minutes: leases begin.
    back = 0
    for found, models in ready:
        with _left_if_it_cannot(found.event.batch.session, journal, driver):
            gate.restore(found)
            back += 1
            for model in models.values():
                fleet.start_engines(model)
    return back


@contextmanager
def _left_if_it_cannot(session: SessionId, journal: Journal, driver: Driver) -> Generator[None]:
    try:
        yield
    except (msgspec.DecodeError, ValueError) as error:
        log.error("session %s in %s cannot be read: %s", shown(session), journal.path, error)
        driver.recorder.leaves(session)
    except ParrotError as error:
        log.error("session %s in %s cannot go on: %s", shown(session), journal.path, error)
        driver.recorder.leaves(session)
