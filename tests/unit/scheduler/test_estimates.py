"""Outputs are expected to be as long as those before them were, and prompts as many tokens as their tenant's were."""

import pytest

from parrotserve.graph.events import NewRequest
from parrotserve.graph.objects import Request, Session, Times
from parrotserve.ids import RequestId, SessionId, TenantId, VariableId
from parrotserve.sampling import Sampling, Usage
from parrotserve.scheduler.estimates import Estimates
from parrotserve.segments import Output


def request(function: str, *, tenant: str = "t", **sampling: object) -> Request:
    output = Output(VariableId("v"), Sampling(seed=0, **sampling))  # type: ignore[arg-type]
    session = Session(id=SessionId("s"), tenant=TenantId(tenant), lease_seconds=1.0, began=0.0)
    spec = NewRequest(id=RequestId("r"), function=function, model="m", segments=(output,))
    return Request(spec=spec, session=session, inputs=(), outputs=(), times=Times(submitted=0.0))


def wrote(estimates: Estimates, one: Request, tokens: int, times: int = 20) -> None:
    for _ in range(times):
        estimates.learn(one, 100.0, Usage(prompt_tokens=25, output_tokens=tokens))


def test_a_function_writes_what_it_wrote_before():
    estimates = Estimates()
    wrote(estimates, request("Tell", max_tokens=400), 40)
    assert estimates.output_tokens(request("Tell", max_tokens=1000)) == pytest.approx(40)


def test_a_new_one_as_much_of_what_it_may_as_others_of_its_tenant():
    """So who allows for much and uses little of it is not charged for much."""
    estimates = Estimates()
    assert estimates.output_tokens(request("New", max_tokens=400)) == 200
    wrote(estimates, request("Tell", max_tokens=400), 40)
    assert estimates.output_tokens(request("New", max_tokens=1000)) == pytest.approx(100)
    assert estimates.output_tokens(request("New", max_tokens=400, tenant="other")) == 200


def test_no_more_and_no_less_than_it_may():
    estimates = Estimates()
    wrote(estimates, request("Tell", max_tokens=400), 40)
    assert estimates.output_tokens(request("Tell", max_tokens=8)) == 8
    assert estimates.output_tokens(request("Tell", max_tokens=400, min_tokens=90)) == 90


def test_no_more_than_the_largest_context_takes():
    estimates = Estimates()
    estimates.longest = 1000
    endless = request("Endless", max_tokens=1_000_000)
    assert estimates.output_tokens(endless) == 500
    wrote(estimates, endless, 100)
    assert estimates.output_tokens(request("New", max_tokens=400)) == pytest.approx(40)


def test_where_no_end_is_looked_for_it_writes_all():
    assert Estimates().output_tokens(request("Tell", max_tokens=400, ignore_eos=True)) == 400


def test_what_was_long_ago_is_forgotten():
    estimates = Estimates()
    wrote(estimates, request("Old", max_tokens=400), 40, times=1)
    for number in range(1100):
        wrote(estimates, request(f"f{number}", max_tokens=400), 400, times=1)
    assert estimates.output_tokens(request("Old", max_tokens=400)) > 200


def test_what_makes_a_token_is_learned_for_each_tenant():
    estimates = Estimates()
    for _ in range(100):
        estimates.learn(request("Write", tenant="hanzi", max_tokens=8), 100.0, Usage(prompt_tokens=200))
        estimates.learn(request("Write", tenant="english", max_tokens=8), 100.0, Usage(prompt_tokens=20))
    assert estimates.ratio(TenantId("hanzi")).tokens(1000) == pytest.approx(2000, rel=0.1)
    assert estimates.ratio(TenantId("english")).tokens(1000) == pytest.approx(200, rel=0.1)
    assert estimates.ratio(TenantId("new")).tokens(1000) == 250


def test_of_many_tenants_the_latest_are_remembered():
    estimates = Estimates()
    for number in range(1100):
        estimates.learn(request("Write", tenant=f"t{number}", max_tokens=8), 100.0, Usage(prompt_tokens=200))
    assert estimates.ratio(TenantId("t1099")).chars_per_token < 4
    assert estimates.ratio(TenantId("t0")).chars_per_token == 4
