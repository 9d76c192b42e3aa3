"""What a service writes to its journal and erases from it, and sessions there that cannot come back."""

import asyncio
from pathlib import Path

import pytest
from restart_programs import (
    STORY,
    TELL,
    A,
    Begin,
    S,
    beginning_of,
    declared,
    entries_of,
    everything_in,
    value_of,
)
from runtime_programs import Staged, answer, batch, made, request, taken, text, wait

from parrotserve.errors import UnknownObject
from parrotserve.graph.events import NewRequest, NewVariable, Submitted
from parrotserve.ids import LOCAL_TENANT, RequestId, SessionId, VariableId
from parrotserve.protocol import VariableSpec, WireTransform
from parrotserve.sampling import Sampling
from parrotserve.segments import Output, Text
from parrotserve.store.entries import encoded_batch
from parrotserve.store.journal import Entry, Journal


async def test_a_session_that_ended_is_gone_and_its_texts_too(begin: Begin, tmp_path: Path):
    first = await begin()
    await declared(first, batch(TELL, request("x", text("A secret."), made("b")), wait("a")))
    await first.service.committed()
    assert b"A secret." in everything_in(tmp_path)
    first.service.end_session(S)
    await first.close()
    assert b"A secret." not in everything_in(tmp_path)

    second = await begin()
    assert second.service.sessions(None).data == ()


async def test_a_session_whose_model_is_not_served_waits_in_the_journal(begin: Begin, caplog: pytest.LogCaptureFixture):
    first = await begin()
    await answer(first.service.submit(batch(TELL, wait("a"))))
    await first.close()

    second = await begin(config={"models": ("other",)})
    with pytest.raises(UnknownObject):
        second.service.session_view(S)
    assert "cannot go on" in caplog.text
    await second.close()

    third = await begin()
    assert await value_of(third, A) == STORY


async def left(path: Path, *sessions: str) -> None:
    """Make a journal with sessions whose model nobody serves any more, and whose leases are short."""
    journal = Journal(path)
    for number, session in enumerate(map(SessionId, sessions), 1):
        segments = (Text("A secret."), Output(A, Sampling(seed=1)))
        spec = NewRequest(id=RequestId("r"), function="", model="gone", segments=segments)
        batch = Submitted(
            session=session,
            tenant=LOCAL_TENANT,
            lease_seconds=number / 100,
            variables=(NewVariable(id=A),),
            requests=(spec,),
        )
        journal.add(session, Entry("batch", "", encoded_batch(batch)))
    await journal.close()


async def only(staged: Staged, *sessions: str) -> None:
    """Wait until the journal has entries of these sessions only."""
    assert staged.journal is not None
    while [session for session, _ in staged.journal.sessions()] != list(sessions):
        await asyncio.sleep(0.001)


async def test_a_session_that_cannot_go_on_is_kept_for_as_long_as_its_lease(
    begin: Begin, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    await left(tmp_path / "journal.db", "s1", "s2")
    staged = await begin()
    await only(staged)
    assert caplog.text.count("is dropped: its lease is over") == 2
    with pytest.raises(UnknownObject):
        staged.service.end_session(SessionId("s1"))
    await staged.close()
    assert b"A secret." not in everything_in(tmp_path)


async def test_one_that_cannot_be_read_is_kept_for_as_long_as_a_lease_may_be(begin: Begin, tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    journal.add(S, Entry("batch", "", b"of another kind"))
    await journal.close()
    await only(await begin(config={"max_lease_seconds": 0.01}))


async def test_a_new_session_has_its_own_lease(begin: Begin, tmp_path: Path):
    await left(tmp_path / "journal.db", S, "later")
    staged = await begin()
    await answer(staged.service.submit(batch(request("r", text("two"), made("a")), wait("a"))))
    await only(staged, S)
    assert await value_of(staged, A) == "one"


async def test_what_is_sent_again_is_not_written_again(begin: Begin):
    document = VariableSpec(id="doc", value="A long document. " * 1000)
    first = await begin()
    await declared(first, batch(document, session="other"))
    body = batch(VariableSpec(id="x"), VariableSpec(id="y"), request("r", taken("doc"), taken("x"), made("a")))

    async def do_all(number: int) -> int:
        await declared(first, body)
        await declared(first, batch(document))
        await declared(first, batch(request(f"r{number}", taken("doc"), made(f"b{number}"))))
        first.service.set_value(S, VariableId("x"), "x" * 10_000)
        first.service.cancel_variable(S, VariableId("y"))
        await first.service.committed()
        return sum(len(entry.body) for entry in entries_of(first))

    once = await do_all(1)
    assert await do_all(2) - once < 1000


async def test_a_new_session_has_nothing_of_one_of_its_id_that_could_not_go_on(begin: Begin, tmp_path: Path):
    first = await begin()
    await answer(first.service.submit(batch(TELL, wait("a"))))
    await first.close()

    second = await begin(config={"models": ("other",)})
    await answer(second.service.submit(batch(request("r", text("two"), made("a")), wait("a"))))
    await second.close()

    third = await begin(config={"models": ("other",)})
    assert await value_of(third, A) == "one"
    third.service.end_session(S)
    await third.close()
    assert STORY.encode() not in everything_in(tmp_path)


async def test_nothing_is_left_of_a_session_that_is_refused(begin: Begin, tmp_path: Path):
    first = await begin(ticking=True)
    await declared(first, batch(TELL))
    await beginning_of(first, first.service.stream(S, A))
    await first.close()
    journal = Journal(tmp_path / "journal.db")
    again = Submitted(session=S, tenant=LOCAL_TENANT, lease_seconds=30, variables=(NewVariable(id=A, name="another"),))
    journal.add(S, Entry("batch", "", encoded_batch(again)))
    await journal.close()

    second = await begin()
    assert second.service.recovered == 0
    new = await answer(second.service.submit(batch(request("r", text("two"), made("a")), wait("a", stream=True))))
    assert new.streamed == new.values == {"a": "one"}


async def test_numbers_of_any_size_can_be_kept(begin: Begin):
    every_line = WireTransform(name="lines", args=(1, 10**30))
    first = await begin(ticking=True)
    await declared(first, batch(VariableSpec(id="x", value="tell"), request("r", taken("x", every_line), made("a"))))
    await first.close()

    second = await begin()
    assert await value_of(second, A) == STORY


async def test_what_a_request_used_is_told_once_it_is_committed(begin: Begin):
    staged = await begin()
    journal = staged.journal
    assert journal is not None
    await declared(staged, batch(TELL))
    assert await value_of(staged, A) == STORY
    with journal._using:
        journal.add(S, Entry("usage", "r", b""))
        telling = asyncio.ensure_future(staged.service.request_usage(S, RequestId("r")))
        await asyncio.sleep(0.1)
        assert not telling.done()
    assert (await telling).output_tokens


async def test_a_session_that_could_not_come_back_can_be_ended(begin: Begin, tmp_path: Path):
    first = await begin()
    await answer(first.service.submit(batch(TELL, request("x", text("A secret."), made("b")), wait("a"))))
    await first.close()

    second = await begin(config={"models": ("other",)})
    second.service.end_session(S)
    with pytest.raises(UnknownObject):
        second.service.end_session(S)
    await second.close()
    assert b"A secret." not in everything_in(tmp_path)
