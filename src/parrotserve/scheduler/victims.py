"""The requests that an engine pauses to make room for a pressing one."""

from collections.abc import Iterator

from parrotserve.scheduler.aboard import Aboard
from parrotserve.scheduler.lines import TURN_SECONDS
from parrotserve.scheduler.load import EngineLoad
from parrotserve.scheduler.pool import Pool
from parrotserve.scheduler.tickets import Ticket


def victims(pool: Pool, load: EngineLoad, ticket: Ticket, now: float) -> list[Aboard]:
    """The requests to pause on this engine: throughput work first, then requests of tenants that add more to its steps
    than this request's tenant will. An empty list if pausing would not suffice. Takes O(aboard log aboard)."""
    if not load.pausable:
        return []
    found: list[Aboard] = []
    rows, tokens = load.lacking(ticket)
    prefixes = load.residents.letting_go(ticket.prefix.boundaries)
    for victim in _able(pool, load, ticket, now):
        if rows <= 0 and tokens <= 0:
            break
        found.append(victim)
        rows, tokens = rows - 1, tokens - victim.tail - prefixes.freed(victim.boundaries)
    return found if rows <= 0 and tokens <= 0 else []


def _able(pool: Pool, load: EngineLoad, ticket: Ticket, now: float) -> Iterator[Aboard]:
    tenant = ticket.request.session.tenant
    bulk: dict[Aboard, None] = {}
    for victim in load.victims(protected=pool.share.is_low(now)):
        if not pool.line_is_ahead(tenant, victim.tenant, TURN_SECONDS):
            bulk[victim] = None
            yield victim
    yield from (one for one in load.crowd.yielding(tenant, load.stretch(ticket)) if one not in bulk)
