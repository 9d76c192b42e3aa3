"""The ledger never lets more be claimed and taken than a limit, and gives back what is not used."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from parrotserve.errors import LimitExceeded, RequestRefused, TooLarge
from parrotserve.ids import RequestId, SessionId, TenantId
from parrotserve.tenancy.ledger import WINDOW_SECONDS, Claim, Ledger
from parrotserve.tenancy.limits import Limits

ANN, BOB = TenantId("ann"), TenantId("bob")
ONE, TWO = SessionId("one"), SessionId("two")


def claim(name: str, tokens: int = 10) -> Claim:
    return Claim(RequestId(name), tokens)


def test_a_batch_is_accepted_whole_or_not_at_all():
    ledger, limits = Ledger(), Limits(tokens_per_minute=25)
    ledger.accept(ANN, ONE, [claim("a")], limits, now=0)
    with pytest.raises(LimitExceeded):
        ledger.accept(ANN, TWO, [claim("b"), claim("c")], limits, now=0)
    assert ledger.held(ANN, now=0) == (1, 1, 10, 0)
    ledger.accept(ANN, TWO, [claim("b")], limits, now=0)
    assert ledger.held(ANN, now=0) == (2, 2, 20, 0)


def test_what_was_not_taken_is_free_again():
    ledger, limits = Ledger(), Limits(tokens_per_minute=100)
    ledger.accept(ANN, ONE, [claim("a", 90), claim("b", 10)], limits, now=0)
    ledger.settle(RequestId("a"), 5, now=1)
    ledger.settle(RequestId("b"), 0, now=1)
    ledger.settle(RequestId("b"), 50, now=1)  # twice is nothing
    assert ledger.held(ANN, now=1) == (1, 0, 0, 5)
    ledger.accept(ANN, ONE, [claim("c", 95)], limits, now=1)


def test_a_restored_session_keeps_what_it_took_whatever_the_limits_are():
    ledger, limits = Ledger(), Limits(session_tokens=100, tokens_per_minute=50)
    ledger.restore(ANN, ONE, [claim("a", 60)], 30, now=0)
    assert ledger.held(ANN, now=0) == (1, 1, 60, 0)
    with pytest.raises(TooLarge, match="10 are left of the 100"):
        ledger.accept(ANN, ONE, [claim("b", 11)], limits, now=0)
    ledger.settle(RequestId("a"), 0, now=0)
    ledger.accept(ANN, ONE, [claim("b", 50)], limits, now=0)


def test_the_refusal_says_when_there_will_be_room():
    ledger, limits = Ledger(), Limits(tokens_per_minute=100)
    for moment, name in ((0, "a"), (20, "b")):
        ledger.accept(ANN, ONE, [claim(name, 50)], limits, now=moment)
        ledger.settle(RequestId(name), 50, now=moment)
    for tokens, wait in ((50, "30"), (51, "50")):
        with pytest.raises(LimitExceeded) as refused:
            ledger.accept(ANN, ONE, [claim("c", tokens)], limits, now=30)
        assert refused.value.details == {"limit": "tokens_per_minute", "retry_after": wait}
        again = Ledger()
        assert again.held(ANN, now=0) == (0, 0, 0, 0)
    ledger.accept(ANN, ONE, [claim("c", 50)], limits, now=60)


def test_nobody_waits_a_second_more_for_a_rounding_error():
    ledger, limits, now = Ledger(), Limits(tokens_per_minute=100), 77.3
    assert now + WINDOW_SECONDS - now > WINDOW_SECONDS
    ledger.accept(ANN, ONE, [claim("a", 100)], limits, now=now)
    ledger.settle(RequestId("a"), 100, now=now)
    with pytest.raises(LimitExceeded) as refused:
        ledger.accept(ANN, ONE, [claim("b", 1)], limits, now=now)
    assert refused.value.details["retry_after"] == "60"


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (Limits(tokens_per_minute=19), "tokens_per_minute"),
        (Limits(session_tokens=19), "session_tokens"),
        (Limits(requests_in_flight=1), "requests_in_flight"),
    ],
)
def test_what_would_never_fit_is_not_worth_trying_again(limits: Limits, limit: str):
    with pytest.raises(TooLarge) as refused:
        Ledger().accept(ANN, ONE, [claim("a"), claim("b")], limits, now=0)
    assert refused.value.details == {"limit": limit}


def test_a_sessions_budget_is_for_its_life():
    ledger, limits = Ledger(), Limits(session_tokens=30)
    ledger.accept(ANN, ONE, [claim("a", 20)], limits, now=0)
    ledger.settle(RequestId("a"), 20, now=0)
    with pytest.raises(TooLarge, match="10 are left of the 30"):
        ledger.accept(ANN, ONE, [claim("b", 11)], limits, now=10_000)
    ledger.accept(ANN, TWO, [claim("b", 30)], limits, now=10_000)


def test_sessions_are_counted_while_they_live():
    ledger, limits = Ledger(), Limits(sessions=1)
    ledger.accept(ANN, ONE, [], limits, now=0)
    ledger.accept(ANN, ONE, [], limits, now=0)
    with pytest.raises(LimitExceeded, match="1 sessions"):
        ledger.accept(ANN, TWO, [], limits, now=0)
    ledger.end_session(ONE)
    ledger.accept(ANN, TWO, [], limits, now=0)


def test_a_claim_grows_only_within_the_limits():
    ledger, limits = Ledger(), Limits(tokens_per_minute=30)
    ledger.accept(ANN, ONE, [claim("a"), claim("b")], limits, now=0)
    with pytest.raises(LimitExceeded):
        ledger.resize(RequestId("a"), 21, limits, now=0)
    ledger.resize(RequestId("a"), 20, limits, now=0)
    ledger.resize(RequestId("b"), 3, limits, now=0)
    assert ledger.held(ANN, now=0) == (1, 2, 23, 0)


def test_tenants_do_not_share_limits():
    ledger, limits = Ledger(), Limits(tokens_per_minute=10, requests_in_flight=1, sessions=1)
    ledger.accept(ANN, ONE, [claim("a")], limits, now=0)
    ledger.accept(BOB, TWO, [claim("b")], limits, now=0)
    with pytest.raises(LimitExceeded):
        ledger.accept(BOB, TWO, [claim("c")], limits, now=0)


class AnyOrder(RuleBasedStateMachine):
    """Batches of two tenants in two sessions each come, grow, end and are cancelled in any order and at any time."""

    @initialize(
        minute=st.integers(20, 100), session=st.integers(20, 200), flight=st.integers(1, 6), sessions=st.integers(1, 2)
    )
    def begin(self, minute: int, session: int, flight: int, sessions: int) -> None:
        self.limits = Limits(
            tokens_per_minute=minute, session_tokens=session, requests_in_flight=flight, sessions=sessions
        )
        self.ledger = Ledger()
        self.now = 0.0
        self.open: dict[RequestId, tuple[TenantId, SessionId, int]] = {}
        self.taken: list[tuple[float, TenantId, SessionId, int]] = []
        self.sessions: set[tuple[TenantId, SessionId]] = set()
        self.count = 0
        self.waits: list[int] = []

    @rule(
        tenant=st.sampled_from([ANN, BOB]),
        session=st.sampled_from("12"),
        sizes=st.lists(st.integers(0, 60), max_size=4),
    )
    def accept(self, tenant: TenantId, session: str, sizes: list[int]) -> None:
        name = SessionId(tenant + session)
        claims = [claim(f"r{self.count + number}", size) for number, size in enumerate(sizes)]
        self.count += len(claims)
        try:
            self.ledger.accept(tenant, name, claims, self.limits, now=self.now)
        except LimitExceeded as refused:
            self.waits.append(int(refused.details["retry_after"]))
            return
        except TooLarge:
            return
        self.sessions.add((tenant, name))
        self.open |= {one.request: (tenant, name, one.tokens) for one in claims}

    @rule(pick=st.integers(0, 20), share=st.floats(0, 1))
    def end(self, pick: int, share: float) -> None:
        if self.open:
            request = list(self.open)[pick % len(self.open)]
            tenant, session, tokens = self.open.pop(request)
            used = int(tokens * share)
            self.ledger.settle(request, used, now=self.now)
            self.taken.append((self.now, tenant, session, used))

    @rule(pick=st.integers(0, 20), tokens=st.integers(0, 80))
    def resize(self, pick: int, tokens: int) -> None:
        if self.open:
            request = list(self.open)[pick % len(self.open)]
            tenant, session, _ = self.open[request]
            try:
                self.ledger.resize(request, tokens, self.limits, now=self.now)
            except RequestRefused:
                return
            self.open[request] = (tenant, session, tokens)

    @rule(seconds=st.floats(0, 50))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @invariant()
    def whoever_waits_is_told_how_long(self) -> None:
        assert all(1 <= wait <= WINDOW_SECONDS for wait in self.waits)

    @invariant()
    def nothing_overshoots(self) -> None:
        for tenant in (ANN, BOB):
            claimed = sum(tokens for owner, _, tokens in self.open.values() if owner == tenant)
            recent = sum(used for when, owner, _, used in self.taken
                         if owner == tenant and when > self.now - WINDOW_SECONDS)  # fmt: skip
            assert claimed + recent <= self.limits.tokens_per_minute
            in_flight = sum(owner == tenant for owner, *_ in self.open.values())
            assert in_flight <= self.limits.requests_in_flight
            sessions = sum(owner == tenant for owner, _ in self.sessions)
            assert sessions <= self.limits.sessions
            assert self.ledger.held(tenant, now=self.now) == (sessions, in_flight, claimed, recent)
        for _, session in self.sessions:
            spent = sum(tokens for _, name, tokens in self.open.values() if name == session)
            spent += sum(used for _, _, name, used in self.taken if name == session)
            assert spent <= self.limits.session_tokens


TestAnyOrder = AnyOrder.TestCase
