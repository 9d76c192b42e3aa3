"""The embedded service, as the front end uses it: through its transport."""

import asyncio
import subprocess
import sys

import pytest
from runtime_programs import SESSION, answer, batch, call, made, request, taken, text, wait

from parrotserve.config import ServiceConfig
from parrotserve.embedded import EmbeddedTransport, PullBar
from parrotserve.errors import ServiceUnavailable, UnknownModel, UnknownObject
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import CallResult, VariableSpec
from parrotserve.sdk.transport import Transport

S = SessionId(SESSION)
FAKE = ServiceConfig(models=("fake",), on_demand=True)


@pytest.fixture
async def transport():
    embedded: Transport = EmbeddedTransport(FAKE)
    await embedded.open()
    yield embedded
    await embedded.close()


async def test_it_does_all_that_a_transport_does(transport: Transport):
    program = batch(
        VariableSpec(id="x"),
        request("r", text("tell "), taken("x"), made("a")),
        call("f", ["a"], "b"),
        wait("b"),
    )
    waiting = asyncio.ensure_future(answer(transport.submit(program)))
    await asyncio.sleep(0)
    await transport.set_value(S, VariableId("x"), "1")
    offers = transport.calls(S)
    offer = await anext(offers)
    await transport.put_result(S, CallId("f"), CallResult(value=offer.inputs[0].upper()))
    got = await waiting
    told = await answer(transport.stream(S, VariableId("a"), 0))
    assert got.values["b"] == told.streamed["a"].upper()
    assert [one.state for one in (await transport.session_view(S)).requests] == ["done"]
    await transport.cancel(S, VariableId("a"))
    await transport.retry(S, VariableId("a"))
    await transport.end_session(S)
    with pytest.raises(UnknownObject):
        await transport.session_view(S)


async def test_its_sessions_live_as_long_as_their_client(transport: Transport):
    await answer(transport.submit(batch(request("r", text("x"), made("a")), lease=0.01)))
    probe = transport.submit(batch(VariableSpec(id="never"), wait("never", timeout=0.05), session="probe"))
    await answer(probe)  # five leases have passed
    assert (await transport.session_view(S)).id == S


async def test_it_says_which_models_there_are():
    transport = EmbeddedTransport(ServiceConfig(models=("no-such-model",)))
    with pytest.raises(UnknownModel, match="smollm2-135m"):
        await transport.open()
    await transport.close()


async def test_a_closed_one_says_so():
    transport = EmbeddedTransport(FAKE)
    with pytest.raises(ServiceUnavailable, match="not running"):
        await transport.end_session(S)
    await transport.open()
    await transport.close()
    await transport.close()
    with pytest.raises(ServiceUnavailable):
        await answer(transport.submit(batch()))


def test_the_bar_is_silent_until_something_is_fetched(capsys: pytest.CaptureFixture[str]):
    with PullBar():
        pass
    assert capsys.readouterr() == ("", "")
    with PullBar() as bar:
        bar(10, 100)
        bar(100, 100)
    out, err = capsys.readouterr()
    assert out == ""
    assert "Fetching the model" in err


def test_importing_it_is_enough_to_be_reached_from_a_program():
    program = (
        "import Parrot as P\n"
        "@P.SemanticFunction(model='fake')\n"
        "def Tell(x: P.SemanticVariable):\n"
        "    '''Tell {{input:x}}: {{output:y}}'''\n"
        "print(len(Tell('a tale').get()) > 0)\n"
    )
    environment = {"PARROT_MODELS": "fake", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.stdout, done.stderr) == ("True\n", "")
