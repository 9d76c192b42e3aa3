"""Bringing back the sessions of the journal when the service starts."""

import logging

import msgspec

from parrotserve.errors import ParrotError
from parrotserve.ids import shown
from parrotserve.runtime.driver import Driver
from parrotserve.runtime.fleet import Fleet
from parrotserve.runtime.gate import Gate
from parrotserve.store.journal import Journal
from parrotserve.store.recovery import recovered

log = logging.getLogger(__name__)


def recover(journal: Journal, driver: Driver, fleet: Fleet, gate: Gate, *, longest_lease: float) -> int:
    """Bring back all sessions of a journal, and record from now on. Returns the number of sessions. Models on demand
    that they name are loaded meanwhile: what is known can be had at once, and what is to run waits for its model.

    A session that cannot come back stays in the journal until its lease (or, if that cannot be read, the longest one)
    is over, for a service that is started in the meantime and has its models, unless a new one takes its id. Raises
    `ServiceUnavailable` if the journal cannot be read.
    """
    known, back = list(journal.sessions()), 0
    driver.recorder.begin(journal)
    for session, entries in known:
        lease = longest_lease
        try:
            found = recovered(entries)
            lease = min(lease, found.event.batch.lease_seconds)
            fleet.expect(found.models)
            gate.restore(found)
        except (msgspec.DecodeError, ValueError) as error:
            log.error("session %s in %s cannot be read: %s", shown(session), journal.path, error)
            driver.leave(session, lease)
        except ParrotError as error:
            log.error("session %s in %s cannot go on: %s", shown(session), journal.path, error)
            driver.leave(session, lease)
        else:
            back += 1
            for model in found.models:
                fleet.start_engines(model)
    return back
