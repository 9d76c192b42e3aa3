"""A timing audit: what the time of an answer tells one tenant of another, on an idle engine of the real model.

Three kinds of probes, interleaved: a prompt that the same tenant sent before, one that another tenant did, and one that
nobody did.
"""

import asyncio
import math
import statistics
import time

import pytest
from real_service import program, real_service

from parrotserve.ids import SessionId, TenantId
from parrotserve.runtime.service import Service

ANN, BOB = TenantId("ann"), TenantId("bob")
PAIRS = 200
MOST_PAIRS = 600
"""As many are measured where the machine is so noisy that fewer do not decide: noise then cancels out, a leak stays."""
WORDS = 48
"""Of a prompt: enough that computing it takes several times what a request takes besides."""


def prompt(kind: str, number: int) -> str:
    """As long as all others, and different from them from its first page on."""
    return " ".join(f"{kind}{number}" if index % 3 == 0 else "parrot" for index in range(WORDS))


async def probe(service: Service, tenant: TenantId, text: str, session: str) -> tuple[float, int]:
    """Seconds until the first token, and the cached tokens that usage names."""
    body = program(session, text, stream=False, max_tokens=1, ignore_eos=True)
    # The chat template's beginning would be shared by all of a tenant's prompts.
    body = body.model_copy(update={"requests": (body.requests[0].model_copy(update={"chat": False}),)})
    began = time.perf_counter()
    async for _ in service.submit(body, tenant=tenant):
        pass
    seconds = time.perf_counter() - began
    while (view := service.session_view(SessionId(session), tenant=tenant)).requests[0].state != "done":
        await asyncio.sleep(0)
    service.end_session(SessionId(session), tenant=tenant)
    return seconds, view.usage.cached_tokens


def sign_test(differences: list[float]) -> float:
    """How likely as many of one sign are by chance, both sides counted: exact, whatever the noise's distribution."""
    count, above = len(differences), sum(difference > 0 for difference in differences)
    extreme = max(above, count - above)
    return min(1.0, 2 * sum(math.comb(count, number) for number in range(extreme, count + 1)) / 2**count)


def unseen(across: list[float], hits: list[float]) -> bool:
    """Whether what is seen of another tenant is less than a fiftieth of what is seen of one's own."""
    return abs(statistics.median(across)) < 0.02 * statistics.median(hits)


@pytest.mark.model
@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_hit_is_seen_within_a_tenant_and_not_across_tenants():
    hits: list[float] = []
    across: list[float] = []
    async with real_service(threads=1) as real:
        service = real.service
        number = -5  # the first ones warm up
        while number < PAIRS or (number < MOST_PAIRS and (number % PAIRS or not unseen(across, hits))):
            kinds = ("own", "foreign", "fresh") if number % 2 else ("fresh", "foreign", "own")
            await probe(service, ANN, prompt("foreign", number), f"secret.{number}")
            times: dict[str, float] = {}
            for kind in kinds:
                # His own of before: the fresh one of the last round.
                text = prompt("fresh", number - 1) if kind == "own" else prompt(kind, number)
                times[kind], cached = await probe(service, BOB, text, f"{kind}.{number}")
                assert (cached > 0) == (kind == "own" and number > -5)
            if number >= 0:
                hits.append(times["fresh"] - times["own"])
                across.append(times["fresh"] - times["foreign"])
            number += 1
    effect = statistics.median(hits)
    seen = statistics.median(across)
    print(f"{len(hits)} pairs: effect {1000 * effect:.2f} ms, p = {sign_test(hits):.1e}; across tenants "
          f"{1000 * seen:.3f} ms ({seen / effect:.2%}), p = {sign_test(across):.2f}")  # fmt: skip
    assert effect > 0
    assert sign_test(hits) < 1e-6
    assert unseen(across, hits)
