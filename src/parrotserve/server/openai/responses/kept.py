"""Responses that are kept: each is a session of its own, which holds what it was made of and its answer.

So they live as sessions do: for a time after their last use, within their tenant's limits, and in the journal.
"""

import asyncio
import json
import re
import time
from collections import OrderedDict, defaultdict
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from parrotserve.errors import RequestRefused, UnknownObject
from parrotserve.ids import SessionId, TenantId
from parrotserve.runtime.noted import Noted, noted
from parrotserve.runtime.render import LONG_TEXT
from parrotserve.runtime.service import Service
from parrotserve.server.openai.answers import json_text
from parrotserve.server.openai.responses.wire import Item, ResponsesRequest
from parrotserve.server.openai.submissions import Origin
from parrotserve.server.openai.wire import Body
from parrotserve.tenancy.limits import Limits

PREFIX = "resp_"
"""What precedes the base of its ids in the id of a response."""
_IDENTITY = re.compile(PREFIX + "[ci]-[0-9a-f]{16,32}")
MOST_KEPT = 1000
"""Most responses of a tenant that are kept; the oldest go first."""
MOST_CHARACTERS = 20_000_000
"""Most characters of the conversations that these hold, together."""
_HALF = 2
"""Of the sessions that a tenant may have, its responses get one of so many, and what they hold may be one of so many
of the bytes that its sessions may hold."""


class Record(Body):
    """What a response was made of."""

    body: ResponsesRequest
    earlier: list[Item]
    """The conversation that it continued."""

    def to_json(self) -> str:
        """The stored form."""
        return json_text(self.model_dump(exclude_unset=True, by_alias=True))

    @classmethod
    def from_json(cls, text: str) -> "Record":
        """A record from its stored form. Raises `ValueError` for another text."""
        return cls.model_validate(json.loads(text))  # pydantic's own parser refuses what is no character

    @property
    def items(self) -> list[Item]:
        """The conversation up to the answer, without instructions."""
        given = self.body.input
        return [*self.earlier, *([Item(role="user", content=given)] if isinstance(given, str) else given or [])]


@dataclass(frozen=True, slots=True)
class Kept:
    """A response that is kept."""

    session: SessionId
    record: Record
    state: Noted
    created: int
    """In seconds since 1970."""

    @property
    def origin(self) -> Origin:
        """The origin of its ids."""
        return Origin(self.session, self.session, keeps_session=True, repeatable=False, kept=True)


class KeptResponses:
    """The responses that tenants have kept, from the least recently used on. Owned by one event loop."""

    def __init__(self) -> None:
        self._tenants: defaultdict[TenantId, OrderedDict[SessionId, int]] = defaultdict(OrderedDict)

    def has_room(self, limits: Limits) -> bool:
        """Whether a tenant with these limits may keep responses."""
        return _most(limits) > 0

    def keep(self, service: Service, session: SessionId, size: int, tenant: TenantId) -> None:
        """Count a response that is complete, with so many characters, and end the sessions of others if there are too
        many."""
        kept, limits = self._tenants[tenant], service.directory.limits(tenant)
        kept[session] = size
        kept.move_to_end(session)
        while len(kept) > 1:
            too_large = limits.held_bytes is not None and service.held(tenant) > limits.held_bytes // _HALF
            if not too_large and len(kept) <= _most(limits) and sum(kept.values()) <= MOST_CHARACTERS:
                break
            oldest, _ = kept.popitem(last=False)
            with suppress(RequestRefused):
                service.end_session(oldest, tenant=tenant)

    async def find(self, service: Service, identity: str, tenant: TenantId, *, param: str) -> Kept:
        """The response with an id, whose lease is renewed. Raises `UnknownObject`."""
        session = SessionId(identity.removeprefix(PREFIX))
        state = None
        if _IDENTITY.fullmatch(identity):
            with suppress(UnknownObject):
                read = partial(noted, note=Origin.note_of(session))
                state = await service.read_session(session, read, tenant=tenant)
        record = None if state is None else await _record(state.note)
        if state is None or record is None:
            raise UnknownObject(
                f"There is no response {identity[:80]!r}: it never was, was made with store=false, was deleted, or was "
                "not used for too long. Send the whole conversation as input.",
                param=param,
            )
        if state.is_answered:  # it may be from before a restart, and not be counted yet
            self._tenants[tenant][session] = len(state.note)
            self._tenants[tenant].move_to_end(session)
        age = asyncio.get_running_loop().time() - state.began  # the machine's clock
        return Kept(session, record, state, created=int(time.time() - age))

    def forget(self, service: Service, session: SessionId, tenant: TenantId) -> None:
        """End a response's session."""
        self._tenants[tenant].pop(session, None)
        service.end_session(session, tenant=tenant)


def _most(limits: Limits) -> int:
    return MOST_KEPT if limits.sessions is None else min(MOST_KEPT, limits.sessions // _HALF)


async def _record(text: str) -> Record | None:
    """A record from its stored form; None for a note of another kind. A long one is read in a thread."""
    try:
        return Record.from_json(text) if len(text) <= LONG_TEXT else await asyncio.to_thread(Record.from_json, text)
    except (ValueError, RecursionError):
        return None
