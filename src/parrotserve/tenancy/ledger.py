"""The ledger: what tenants' limits leave, reserved before it is used. Pure; `now` is an argument, in seconds.

When a request is accepted, it claims the most tokens that it may take (its prompt and all the output it may write), in
one step with all requests of its batch: all are accepted or none. When it ends, the claim is replaced by what it took,
which is nothing if it never ran. So the claimed and taken tokens together never exceed a limit, even if many requests
are accepted at the same time.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from parrotserve.errors import LimitExceeded, TooLarge
from parrotserve.ids import RequestId, SessionId, TenantId
from parrotserve.tenancy.limits import Limits

WINDOW_SECONDS = 60.0
_SOON = 1.0
"""Seconds after which to try again if it is not known when there will be room."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The most tokens that a request may take, prompt and outputs together."""

    request: RequestId
    tokens: int


@dataclass(slots=True)
class _Session:
    account: "_Account"
    claimed: int = 0
    taken: int = 0


@dataclass(slots=True)
class _Account:
    sessions: int = 0
    claims: int = 0
    claimed: int = 0
    taken: deque[tuple[float, int]] = field(default_factory=deque[tuple[float, int]])
    """(time, tokens) of what was taken within the last window, oldest first."""
    taken_sum: int = 0

    def expire(self, now: float) -> None:
        while self.taken and self.taken[0][0] <= now - WINDOW_SECONDS:
            self.taken_sum -= self.taken.popleft()[1]

    def take(self, tokens: int, now: float) -> None:
        self.taken.append((now, tokens))
        self.taken_sum += tokens

    def room_at(self, tokens: int, limit: int, now: float) -> float:
        """Seconds until `tokens` more fit, as taken ones leave the window; `_SOON` if that depends on claims that are
        still open."""
        excess = self.taken_sum + self.claimed + tokens - limit
        for moment, taken in self.taken:
            excess -= taken
            if excess <= 0:
                return max(moment + WINDOW_SECONDS - now, _SOON)
        return _SOON


class Ledger:
    """The accounts of all tenants. A method that raises `LimitExceeded` or `TooLarge` has changed nothing."""

    def __init__(self) -> None:
        self._accounts: dict[TenantId, _Account] = {}
        self._sessions: dict[SessionId, _Session] = {}
        self._claims: dict[RequestId, tuple[_Session, int]] = {}

    def accept(
        self, tenant: TenantId, session: SessionId, claims: Sequence[Claim], limits: Limits, *, now: float
    ) -> None:
        """Claim for the requests of a batch, which must be new, in a session, which is opened if it is new."""
        account = self._accounts.get(tenant)
        if account is None:
            account = self._accounts[tenant] = _Account()
        account.expire(now)
        tokens = sum(claim.tokens for claim in claims)
        opened = self._sessions.get(session)
        self._check_counts(account, len(claims), opened is None, limits)
        self._check_tokens(account, opened, tokens, tokens, limits, now)
        if opened is None:
            opened = self._sessions[session] = _Session(account)
            account.sessions += 1
        account.claims += len(claims)
        account.claimed += tokens
        opened.claimed += tokens
        self._claims |= {claim.request: (opened, claim.tokens) for claim in claims}

    def restore(self, tenant: TenantId, session: SessionId, claims: Sequence[Claim], taken: int, *, now: float) -> None:
        """Open a session that was accepted before a restart, whatever the limits are now: claim for its requests that
        are unfinished, and count what it took against its budget. That does not count against the tenant's minute, as
        nobody knows when it was."""
        self.accept(tenant, session, claims, Limits(), now=now)
        self._sessions[session].taken += taken

    def check(self, tenant: TenantId, session: SessionId, requests: int, limits: Limits) -> None:
        """Raise what `accept` would raise for this many new requests, however few tokens they take. Changes nothing."""
        self._check_counts(self._accounts.get(tenant, _Account()), requests, session not in self._sessions, limits)

    def resize(self, request: RequestId, tokens: int, limits: Limits, *, now: float) -> None:
        """Replace a request's claim, now that more is known about it. A larger one is subject to the limits."""
        if request not in self._claims:
            return
        session, before = self._claims[request]
        account = session.account
        if tokens > before:
            account.expire(now)
            self._check_tokens(account, session, tokens - before, tokens, limits, now)
        account.claimed += tokens - before
        session.claimed += tokens - before
        self._claims[request] = (session, tokens)

    def rename(self, request: RequestId, name: RequestId) -> None:
        """Move a claim to another request id."""
        self._claims[name] = self._claims.pop(request)

    def settle(self, request: RequestId, taken: int, *, now: float) -> None:
        """A request ended and took `taken` tokens: the rest of its claim is free. Unknown requests are ignored."""
        if request not in self._claims:
            return
        session, tokens = self._claims.pop(request)
        account = session.account
        account.claims -= 1
        account.claimed -= tokens
        session.claimed -= tokens
        if taken:
            account.take(taken, now)
            session.taken += taken

    def end_session(self, session: SessionId) -> None:
        """A session is over. Requests of it may still be settled later."""
        ended = self._sessions.pop(session, None)
        if ended is not None:
            ended.account.sessions -= 1

    def held(self, tenant: TenantId, *, now: float) -> tuple[int, int, int, int]:
        """What counts against a tenant now: sessions, requests, tokens claimed, tokens taken in the last window."""
        account = self._accounts.get(tenant, _Account())
        account.expire(now)
        return account.sessions, account.claims, account.claimed, account.taken_sum

    # --- Limits ----------------------------------------------------------------------------------------------

    def _check_counts(self, account: _Account, requests: int, new_session: bool, limits: Limits) -> None:
        most = limits.sessions
        if new_session and most is not None and account.sessions >= most:
            raise _later(f"{most} sessions of this tenant are open, which is its limit; end one", "sessions", _SOON)
        most = limits.requests_in_flight
        if most is None or not requests:
            return
        if requests > most:
            raise _never(f"A batch of {requests} requests exceeds the {most} that this tenant may have in flight; send "
                         "it in parts", "requests_in_flight")  # fmt: skip
        if account.claims + requests > most:
            raise _later(f"{account.claims} of {most} requests that this tenant may have in flight are, and this asks "
                         f"for {requests} more", "requests_in_flight", _SOON)  # fmt: skip

    def _check_tokens(
        self, account: _Account, session: _Session | None, tokens: int, whole: int, limits: Limits, now: float
    ) -> None:
        """Check `tokens` more, for a batch or request that takes `whole` in all."""
        budget = limits.session_tokens
        spent = session.claimed + session.taken if session is not None else 0
        if tokens and budget is not None and spent + tokens > budget:
            raise _never(f"This may take {tokens} tokens, and {max(budget - spent, 0)} are left of the {budget} that a "
                         "session of this tenant may use", "session_tokens")  # fmt: skip
        most = limits.tokens_per_minute
        if not tokens or most is None:
            return
        if whole > most:
            raise _never(f"This may take {whole} tokens, more than the {most} a minute of this tenant: lower "
                         "max_tokens, or send it in parts", "tokens_per_minute")  # fmt: skip
        if account.claimed + account.taken_sum + tokens > most:
            free = max(most - account.claimed - account.taken_sum, 0)
            raise _later(f"This may take {tokens} tokens, and {free} are free of the {most} a minute of this tenant",
                         "tokens_per_minute", account.room_at(tokens, most, now))  # fmt: skip


def _later(why: str, limit: str, seconds: float) -> LimitExceeded:
    # In floating point, 60 seconds from now may be 60.00000000000001, which must not become 61.
    wait = math.ceil(round(seconds, 6))
    return LimitExceeded(f"{why}. Try again in {wait} s.", limit=limit, retry_after=str(wait))


def _never(why: str, limit: str) -> TooLarge:
    return TooLarge(f"{why}.", limit=limit)
