"""Sessions: which one a call belongs to, when it sends, how it ends."""

import asyncio
import contextvars
import gc
import threading

import pytest
from fake_service import FakeService
from fake_time import FakeTime

import Parrot as P
from parrotserve.errors import (
    Cancelled,
    DeclarationError,
    EngineFailed,
    ForeignVariable,
    GetTimeout,
    ServiceUnavailable,
)
from parrotserve.sdk.connection import use
from parrotserve.sdk.loop import background
from parrotserve.sdk.session import current_session


@P.SemanticFunction
def Write(task: str):
    """{{input:task}}: {{output:text}}"""


@P.SemanticFunction
def Other(task: str):
    """{{input:task}}: {{output:other}}"""


def in_thread(act) -> None:
    """Run in a thread with a context of its own, and raise what it raises."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


class TestBatching:
    def test_calls_travel_together_with_the_first_wait(self, service: FakeService):
        first, second = Write("x"), Other("y")
        first.get()
        second.get()
        assert [service.functions(body) for body in service.submits] == [["Write", "Other"], []]
        assert service.waits == [["text"], ["other"]]

    def test_calls_that_nobody_waits_for_leave_together_5_ms_after_the_last(self, service: FakeService, time: FakeTime):
        Write("x")
        time.advance(0.004)
        Other("y")
        time.advance(0.004)
        assert service.submits == []
        background().soon(lambda: time.advance(0.001))  # a timer rings on the loop
        service.until(lambda: bool(service.submits))
        assert [service.functions(body) for body in service.submits] == [["Write", "Other"]]
        assert service.waits == [[]]

    def test_sync_waits_until_all_that_was_declared_is_in(self, service: FakeService):
        Write("x")
        current_session().sync()
        assert [service.functions(body) for body in service.submits] == [["Write"]]
        assert service.waits == [[]]

    def test_sync_needs_no_exchange_where_nothing_was_declared(self, service: FakeService):
        current_session().sync()
        assert "view" not in service.log

    async def test_tasks_that_start_to_wait_together_ask_together(self, service: FakeService):
        variables = [Write(n) for n in range(5)]
        assert await asyncio.gather(*(each.aget() for each in variables)) == ["<text>"] * 5
        assert [len(body.wait) for body in service.submits] == [5]

    def test_what_is_not_accepted_yet_travels_again(self, service: FakeService):
        service.down = ServiceUnavailable("Nobody there.")
        first = Write("x")
        with pytest.raises(ServiceUnavailable):
            first.get()
        service.down = None
        assert Write(first).get() == "<text>"
        assert service.functions(service.submits[-1]) == ["Write", "Write"]

    def test_a_defect_of_the_transport_reaches_who_waits(self, service: FakeService):
        service.down = RuntimeError("a defect")  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(RuntimeError, match="a defect"):
            Write("x").get()

    def test_a_defect_is_told_once(self, service: FakeService):
        told: list[object] = []
        background().loop.set_exception_handler(lambda _, context: told.append(context))
        try:
            service.down = RuntimeError("a defect")  # pyright: ignore[reportAttributeAccessIssue]
            with pytest.raises(RuntimeError, match="a defect"):
                Write("x").get()
            service.until(lambda: True)  # the exchange is over
            gc.collect()
        finally:
            background().loop.set_exception_handler(None)
        assert told == []


class TestWhichSession:
    def test_a_block_is_a_session(self, service: FakeService):
        with P.Session() as outer:
            Write("x").get()
            with P.Session() as inner:
                Write("y").get()
            Write("z").get()
        assert [body.session for body in service.submits] == [outer.id, inner.id, outer.id]

    async def test_asynchronous_blocks(self, service: FakeService):
        async with P.Session() as session:
            assert await Write("x").aget() == "<text>"
        assert service.submits[0].session == session.id
        assert session.ended

    def test_outside_of_blocks_a_context_has_one_session(self, service: FakeService):
        sessions = [current_session(), current_session()]
        sessions += [contextvars.Context().run(current_session) for _ in range(2)]
        assert len({session.id for session in sessions}) == 3
        assert sessions[0] is sessions[1]

    async def test_tasks_in_a_block_share_it(self, service: FakeService):
        async with P.Session():
            await asyncio.gather(*(asyncio.create_task(Write(n).aget()) for n in range(3)))
        assert len({body.session for body in service.submits}) == 1

    def test_outside_of_blocks_a_thread_goes_on_with_what_another_began(self, service: FakeService):
        first = Write("x")
        in_thread(lambda: Write(first).get())
        assert len({body.session for body in service.submits}) == 1

    def test_threads_enter_the_same_block(self, service: FakeService):
        with P.Session() as session:
            first = Write("x")

            def work() -> None:
                with session:
                    assert Write(first).get() == "<text>"

            in_thread(work)
            assert not session.ended
            assert Write(first).get() == "<text>"
        assert session.ended

    def test_a_thread_without_a_block_is_elsewhere(self, service: FakeService):
        strangers: list[P.SemanticVariable] = []
        in_thread(lambda: strangers.append(Write("x")))
        with P.Session(), pytest.raises(ForeignVariable, match="in threads, enter the same session"):
            Write(strangers[0])

    def test_another_connection_means_another_default_session(self, service: FakeService):
        before = current_session()
        other = FakeService()
        with use(other, timer=FakeTime()):
            Write("x").get()
        assert len(other.submits) == 1
        assert other.submits[0].session != before.id


class TestEnding:
    def test_what_was_read_stays_readable_and_the_rest_says_why_not(self, service: FakeService):
        with P.Session() as session:
            read, unread = Write("x"), Write("y")
            read.get()
        assert read.get() == "<text>"
        with pytest.raises(Cancelled, match=f"Session {session.id} ended before 'text' was read"):
            unread.get()

    def test_a_block_may_be_left_in_another_context(self, service: FakeService):
        # As web frameworks do with generators: each part of one runs in a thread of its own.
        def of_a_request():
            with P.Session() as session:
                yield session

        generator = of_a_request()
        session = contextvars.copy_context().run(next, generator)
        assert not session.ended
        contextvars.copy_context().run(generator.close)
        assert session.ended
        with P.Session() as outer:
            assert current_session() is outer

    def test_it_is_flushed_and_then_ended(self, service: FakeService):
        with P.Session():
            Write("x")
        service.until(lambda: "end" in service.log)
        assert [service.functions(body) for body in service.submits] == [["Write"]]

    def test_after_an_error_nothing_more_is_declared(self, service: FakeService):
        session = P.Session().__enter__()
        Write("w").get()
        Write("x")
        session.__exit__(KeyError, KeyError(), None)
        service.until(lambda: "end" in service.log)
        assert [service.functions(body) for body in service.submits] == [["Write"]]

    def test_a_session_that_sent_nothing_needs_no_exchange(self, service: FakeService):
        with P.Session() as session:
            pass
        session.end()
        assert (service.submits, service.log) == ([], [])

    def test_one_that_sent_nothing_can_be_looked_at(self, service: FakeService):
        with P.Session() as session:
            assert str(P.explain()) == f"Session {session.id} has no requests.\n"
            assert P.visualize(session) == "flowchart TD\n"
        assert "view" not in service.log

    def test_one_that_has_ended_cannot(self, service: FakeService):
        with P.Session() as session:
            Write("x").get()
        for look in (P.explain, P.visualize):
            with pytest.raises(
                Cancelled, match=f"{session.id} has ended, and its graph with it; call this inside its `with` block"
            ):
                look(session)

    def test_only_sessions_can_be_looked_at(self, service: FakeService):
        for look in (P.explain, P.visualize):
            with pytest.raises(TypeError, match="Pass a Session, or nothing for the current one; got"):
                look(P.SemanticVariable("x"))  # pyright: ignore[reportArgumentType]

    @pytest.mark.parametrize("seconds", [0, -3, "30", float("nan"), 1e9])
    def test_a_lease_is_a_length_of_time(self, seconds: float):
        with pytest.raises(DeclarationError, match="a lease is a number of seconds above 0, to 86400"):
            P.Session(lease_seconds=seconds)

    def test_end_waits_for_the_service(self, service: FakeService):
        session = P.Session()
        with session:
            Write("x").get()
            session.end()
            assert service.log == ["open", "end"]

    def test_nothing_can_be_called_after_the_end(self, service: FakeService):
        with P.Session() as session:
            first = Write("x")
            session.end()
            with pytest.raises(Cancelled, match="has ended"):
                Write("y")
        with pytest.raises(Cancelled, match="has ended"), session:
            pass
        with pytest.raises(Cancelled):
            first.retry()

    def test_waiters_in_other_threads_are_told(self, service: FakeService):
        service.held.add("Write")
        with P.Session():
            text = Write("x")
            waiter = asyncio.run_coroutine_threadsafe(text.aget(), background().loop)
            service.until(lambda: bool(service.submits))
        with pytest.raises(Cancelled):
            waiter.result(10)

    def test_a_session_that_the_program_forgets_is_ended(self, service: FakeService):
        def run() -> None:
            session = P.Session()
            with session:
                # Entered once more, so that leaving the block does not end it.
                session.__enter__()
                Write("x").get()

        contextvars.copy_context().run(run)
        gc.collect()
        service.until(lambda: "end" in service.log)

    def test_closing_the_connection_ends_its_sessions(self):
        service = FakeService()
        with use(service, timer=FakeTime()):
            Write("x").get()
        assert service.log == ["open", "end", "close"]

    def test_a_service_that_is_away_does_not_spoil_the_end(self, service: FakeService):
        with P.Session() as session:
            Write("x").get()
            service.down = ServiceUnavailable("Nobody there.")
            session.end()

    def test_a_thinking_program_keeps_its_session_alive(self, service: FakeService):
        with P.Session(lease_seconds=0.03):
            Write("x").get()
            service.until(lambda: len(service.submits) >= 3)
        beat = service.submits[-1]
        assert (beat.requests, beat.wait, beat.lease_seconds) == ((), (), 0.03)


class TestFailuresAmongOthers:
    def test_one_failure_leaves_the_others_alone(self, service: FakeService):
        service.script["Other"] = EngineFailed("It died.")
        bad, good = Other("x"), Write("y")
        with pytest.raises(EngineFailed):
            bad.get()
        assert good.get() == "<text>"

    def test_gather_raises_the_first_failure_at_once(self, service: FakeService):
        service.held.add("Write")
        service.script["Other"] = EngineFailed("It died.")
        with pytest.raises(EngineFailed):
            P.gather(Write("x"), Other("y"))

    async def test_agather_too(self, service: FakeService):
        service.held.add("Write")
        service.script["Other"] = EngineFailed("It died.")
        with pytest.raises(EngineFailed):
            await P.agather([Write("x"), Other("y")])


class TestGather:
    def test_values_come_in_order_in_one_exchange(self, service: FakeService):
        service.script["Write"] = lambda task: f"about {task}"
        values = P.gather([Write(n) for n in range(3)], Other("x"), P.SemanticVariable("known"))
        assert values == ["about 0", "about 1", "about 2", "<other>", "known"]
        assert len(service.submits) == 1

    async def test_agather(self, service: FakeService):
        assert await P.agather(Write("x"), (Other("y"),)) == ["<text>", "<other>"]
        assert await P.agather() == []

    @pytest.mark.parametrize("in_coroutine", [False, True])
    def test_failures_stand_where_values_would_if_asked_for(self, service: FakeService, in_coroutine: bool):
        def gathered(variables: list[P.SemanticVariable], timeout: float | None = None) -> list[object]:
            if in_coroutine:
                return asyncio.run(P.agather(variables, timeout=timeout, return_exceptions=True))
            return P.gather(variables, timeout=timeout, return_exceptions=True)

        service.script["Other"] = EngineFailed("It died.")
        variables = [Write("x"), Other("y"), Write("z")]
        first, second, third = gathered(variables)
        assert first == third == "<text>"
        assert isinstance(second, EngineFailed)
        service.held.add("Write")
        variables.append(Write("late"))
        *others, late = gathered(variables, timeout=0.01)
        assert [others[0], type(others[1]), others[2]] == ["<text>", EngineFailed, "<text>"]
        assert isinstance(late, GetTimeout)
        service.release("Write")
        assert variables[-1].get() == "<text>"

    def test_nothing_to_gather(self, service: FakeService):
        assert P.gather([]) == []

    def test_several_sessions(self, service: FakeService):
        sessions = [P.Session(), P.Session()]
        variables: list[P.SemanticVariable] = []
        for session in sessions:
            session.__enter__()
            variables.append(Write("x"))
        assert P.gather(variables, perf="throughput") == ["<text>"] * 2
        for session in reversed(sessions):
            session.__exit__(None, None, None)

    def test_timeouts(self, service: FakeService):
        service.held.add("Write")
        with pytest.raises(GetTimeout, match="text PRODUCING"):
            P.gather(P.SemanticVariable("y"), Write("x"), timeout=0.01)

    async def test_timeouts_of_coroutines(self, service: FakeService):
        service.held.add("Write")
        with pytest.raises(GetTimeout, match="text PRODUCING"):
            await P.agather(P.SemanticVariable("y"), Write("x"), timeout=0.01)

    def test_only_variables_are_gathered(self, service: FakeService):
        with pytest.raises(TypeError, match="not str"):
            P.gather("text")  # pyright: ignore[reportArgumentType]

    def test_on_a_terminal_a_bar_shows_how_far_it_is(self, service: FakeService, capsys, monkeypatch):
        monkeypatch.setattr("sys.stderr.isatty", lambda: True)
        monkeypatch.setenv("FORCE_COLOR", "1")
        assert P.gather(Write("x"), Write("y")) == ["<text>"] * 2
        shown = capsys.readouterr().err
        assert "gather" in shown
        assert "2/2" in shown

    def test_elsewhere_it_draws_nothing(self, service: FakeService, capsys):
        P.gather(Write("x"), Write("y"))
        assert capsys.readouterr().err == ""
