"""A service of the real model that is killed while a program uses it, and started again: the program notices only a
pause, and gets what it would have got."""

import asyncio
import random
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from processes import PARROT, ROOT, environment

import Parrot as P

pytestmark = [pytest.mark.model, pytest.mark.timeout(600)]


@P.SemanticFunction(max_tokens=120, ignore_eos=True, temperature=0.8, seed=3)
def write(topic):
    """Write a story about {{input:topic}}. {{output:story}}"""


@P.SemanticFunction(max_tokens=40, ignore_eos=True)
def go_on(story):
    """Go on with this story: {{input:story}} {{output:more}}"""


class Killable:
    """`parrot serve` on one port with one folder of data, for as often as it is started."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._command = [*PARROT, "serve", "--port", str(port), "--data", str(folder), *arguments]
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(
            self._command, stderr=subprocess.PIPE, text=True, env=environment(PARROT_CONFIG="/dev/null"), cwd=ROOT
        )
        assert self._process.stderr is not None
        assert self.url in self._process.stderr.readline()

    def killed_and_started(self) -> None:
        self.end(signal.SIGKILL)
        self._start()

    def end(self, how: int = signal.SIGTERM) -> None:
        with self._process as process:
            process.send_signal(how)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Killable]:
    service = Killable(tmp_path)
    yield service
    service.end()


heard: list[str] = []


@P.NativeFunction
def louder(text: str) -> str:
    heard.append(text)
    return text.upper()


@dataclass
class Program:
    """A story that is streamed, and what native and other calls make of it one after another."""

    story: P.SemanticVariable
    loud: P.SemanticVariable
    last: P.SemanticVariable

    @classmethod
    def begun(cls) -> "Program":
        story = write("a parrot")
        last = loud = louder(story)
        for _ in range(5):
            last = go_on(last)
        return cls(story, loud, last)


def test_a_program_goes_on_after_its_service_was_killed(service: Killable):
    with P.connect(service.url):
        whole = Program.begun()
        undisturbed = "".join(whole.story.stream()), whole.last.get()
        heard.clear()
        again, seen = Program.begun(), ""
        for piece in again.story.stream():
            if len(seen) < 200 <= len(seen) + len(piece):
                service.killed_and_started()
            seen += piece
        again.loud.get()
        service.killed_and_started()
        assert (seen, again.last.get()) == undisturbed
    assert heard == [seen], "what was done is not done again"


@pytest.mark.long
@pytest.mark.parametrize("chance", range(6))
def test_it_may_be_killed_at_any_moments(service: Killable, chance: int):
    moments = random.Random(chance)
    with P.connect(service.url), ThreadPoolExecutor() as pool:
        whole = Program.begun()
        undisturbed = "".join(whole.story.stream()), whole.last.get()
        again = Program.begun()
        texts = [pool.submit(lambda: "".join(again.story.stream())), pool.submit(again.last.get)]
        for _ in range(4):
            time.sleep(moments.uniform(0.0, 1.0))
            service.killed_and_started()
        assert tuple(text.result() for text in texts) == undisturbed


@P.SemanticFunction(max_tokens=40, ignore_eos=True, temperature=0.7, seed=5)
def write_both(topic):
    """Write about {{input:topic}}. {{output:story}} And in short: {{output:summary}}"""


async def a_program(number: int) -> list[str]:
    """A session of its own: a request with two outputs, a native call, and two requests after them."""
    async with P.Session():
        story, summary = write_both(f"parrot {number}")
        loud = louder(story)
        last = go_on(go_on(loud))
        streamed = "".join([piece async for piece in summary.astream()]) if number % 2 else await summary.aget()
        return [streamed, *[await one.aget() for one in (story, summary, loud, last)]]


@pytest.mark.long
async def test_many_programs_at_once_notice_nothing(tmp_path: Path):
    service = Killable(tmp_path, "--model", "fake")
    try:
        with P.connect(service.url):
            undisturbed = await asyncio.gather(*map(a_program, range(60)))
            for chance in range(3):
                moments = random.Random(chance)
                programs = asyncio.gather(*map(a_program, range(60)))
                for _ in range(4):
                    await asyncio.sleep(moments.uniform(0.0, 1.0))
                    await asyncio.to_thread(service.killed_and_started)
                assert await programs == undisturbed
    finally:
        service.end()
