"""What only a process of its own shows: Ctrl-C, forks, threads that outlive the main one, and exits."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from parrotserve.protocol import PROTOCOL_HEADER, PROTOCOL_VERSION, ErrorAnswer, ErrorBody

HELPERS = Path(__file__).parents[2] / "unit" / "sdk"
PRELUDE = """
import os, sys, threading, time
import Parrot as P
from fake_service import FakeService
from parrotserve.sdk import courier
from parrotserve.sdk.connection import set_embedded_factory, use
from parrotserve.sdk.session import current_session

# On a busy machine milliseconds pass between any two lines; here calls leave when they are waited for.
courier.FLUSH_SECONDS = 3600

class Told(FakeService):
    # Says on standard output what it is asked, as it is asked.
    async def submit(self, body):
        print("submit", flush=True)
        async for event in super().submit(body):
            yield event

    async def end_session(self, session):
        print("end", flush=True)

    async def close(self):
        print("close", flush=True)

service = Told()
use(service)

@P.SemanticFunction
def Write(task):
    '''{{input:task}}: {{output:text}}'''
"""


def start(program: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-u",
            "-W",
            "error",
            "-W",
            "ignore:This process:DeprecationWarning",
            "-c",
            PRELUDE + textwrap.dedent(program),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(HELPERS), os.environ.get("PYTHONPATH"))))},
    )


def run(program: str) -> list[str]:
    """The lines that it prints; it must end well and complain of nothing."""
    with start(program) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    return out.splitlines()


def test_ctrl_c_in_a_blocking_get_is_prompt_and_the_variable_stays_usable():
    program = """
        service.held.add("Write")
        text = Write("x")
        try:
            text.get()
        except KeyboardInterrupt:
            print("interrupted", flush=True)
        service.release("Write")
        print(text.get())
    """
    with start(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "submit\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    # The wait that was interrupted still stands, so that the second get needs no exchange.
    assert (out.splitlines(), err) == (["interrupted", "<text>", "end", "close"], "")


def test_ctrl_c_that_nobody_catches_ends_the_program():
    with start("service.held.add('Write')\nWrite('x').get()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "submit\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode in (-signal.SIGINT, 130)
    assert out.splitlines() == ["end", "close"]
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_ctrl_c_does_not_wait_for_a_service_that_does_not_answer():
    program = """
        from parrotserve.sdk import loop
        courier.END_SECONDS = loop.EXIT_SECONDS = 3600

        class Mute(Told):
            async def end_session(self, session):
                await super().end_session(session)
                await loop.asyncio.Event().wait()

        use(Mute(held={"Write"}))
        Write("x").get()
    """
    with start(program) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "submit\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert out.splitlines() == ["end", "close"]
    assert err.rstrip().endswith("KeyboardInterrupt")


def test_at_exit_sessions_are_ended_and_the_transport_is_closed():
    assert run("print(Write('x').get())") == ["submit", "<text>", "end", "close"]


def test_the_first_session_is_ended_when_the_program_forgets_it():
    program = """
        import contextvars, gc
        ended = threading.Event()

        async def end_session(session):
            await Told.end_session(service, session)
            ended.set()

        service.end_session = end_session
        contextvars.Context().run(lambda: print(Write("x").get()))
        gc.collect()
        print(ended.wait(20))
    """
    assert run(program) == ["submit", "<text>", "end", "True", "close"]


def test_a_program_that_only_declares_exits():
    assert run("courier.FLUSH_SECONDS = 0.005\nWrite('x')")[-1:] in ([], ["close"])


def test_threads_go_on_after_the_main_one():
    program = """
        def late():
            threading.main_thread().join()
            print(Write("x").get())
        threading.Thread(target=late).start()
    """
    assert run(program) == ["submit", "<text>", "end", "close"]


def test_threads_that_such_threads_start_go_on_too():
    # The second thread goes on when the first has been waited for: then others are looked for, or all is closed.
    program = """
        looked, enumerate_all = threading.Semaphore(0), threading.enumerate

        def look():
            found = enumerate_all()
            if threading.current_thread().name == "parrot-exit":
                looked.release()
            return found

        async def close():
            await Told.close(service)
            looked.release()

        def first():
            looked.acquire()
            threading.Thread(target=second).start()

        def second():
            looked.acquire()
            print(text.get())

        threading.enumerate, service.close = look, close
        text = Write("x")
        current_session().sync()
        threading.Thread(target=first).start()
    """
    assert run(program) == ["submit", "submit", "<text>", "end", "close"]


def test_a_native_function_that_never_returns_does_not_keep_the_program():
    program = """
        started = threading.Event()

        @P.NativeFunction
        def Hang():
            started.set()
            threading.Event().wait()

        hanging = Hang()
        print(Write("x").get())
        started.wait()
    """
    assert run(program) == ["submit", "<text>", "end", "close"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_starts_anew():
    program = """
        kept = Write("x")
        print(kept.get())
        unread = Write("y")
        current_session().flush()
        service.until(lambda: len(service.submits) == 2)
        set_embedded_factory(Told)
        child = os.fork()
        if child == 0:
            print(kept.get(), Write("z").get(), flush=True)
            try:
                unread.get()
            except P.ParrotError as error:
                print(type(error).__name__, "forked" in error.message, flush=True)
            from parrotserve.sdk.loop import background
            background().close()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        print(unread.get())
    """
    assert run(program) == [
        "submit", "<text>", "submit",
        "submit", "<text> <text>", "ServiceUnavailable True", "end", "close",
        "submit", "<text>", "end", "close",
    ]  # fmt: skip


class Guard(ThreadingHTTPServer):
    """A service that refuses every key, and keeps them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Refuse)
        self.keys: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class _Refuse(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, Guard)
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.keys.append(self.headers["Authorization"])
        body = ErrorAnswer(error=ErrorBody(code="unauthorized", message="No.")).model_dump_json().encode()
        self.send_response(401)
        self.send_header(PROTOCOL_HEADER, str(PROTOCOL_VERSION))
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


FORKS = """
def in_child(act):
    child = os.fork()
    if child == 0:
        act()
        from parrotserve.sdk.loop import background
        background().close()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

def write():
    try:
        print(Write("x").get(), flush=True)
    except P.ParrotError as error:
        print(error.code, flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_talks_to_the_service_that_its_parent_connected_to(guard: Guard):
    program = f"""
        set_embedded_factory(Told)
        P.connect({guard.url!r}, api_key="k-1")
        in_child(write)
        in_child(lambda: in_child(write))
        write()
    """
    assert run(FORKS + textwrap.dedent(program)) == ["unauthorized"] * 3
    assert set(guard.keys) == {"Bearer k-1"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_that_leaves_its_parents_block_is_back_at_the_service_before(guard: Guard):
    program = f"""
        def leave():
            write()
            inner.close()
            write()

        set_embedded_factory(Told)
        outer = P.connect({guard.url!r}, api_key="outer")
        inner = P.connect({guard.url!r}, api_key="inner")
        in_child(leave)
    """
    assert run(FORKS + textwrap.dedent(program)) == ["unauthorized"] * 2
    assert list(dict.fromkeys(guard.keys)) == ["Bearer inner", "Bearer outer"]


def test_importing_is_cheap():
    program = (
        "import Parrot, sys; print(*sorted({'httpx', 'rich', 'parrotserve.embedded', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
