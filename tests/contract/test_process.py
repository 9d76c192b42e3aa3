"""Engines in processes of their own: how they die, hang, hold back, and leave nothing behind."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from engine_driver import Driver, generate
from engines_here import StartNative

from parrotserve.engines.base import EndStatus, Fill, Open, SequenceEnded
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.frames import encode
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.settings import Launch, NativeSettings
from parrotserve.engines.process import ProcessEngine
from parrotserve.errors import EngineFailed, EngineRefused, MalformedModel
from parrotserve.ids import EngineId, RequestId
from parrotserve.models.files import ModelFiles, ModelFormat

TOKENIZER = FakeTokenizer()
PYTHON = [sys.executable, "-c"]


def engine_of(program: str, **options: float) -> ProcessEngine:
    """An engine whose process runs this program instead."""
    return ProcessEngine(EngineId("strange"), [*PYTHON, program], {}, **options)


async def lost(driver: Driver) -> EngineFailed:
    with pytest.raises(EngineFailed) as caught:
        await driver.until(lambda: False)
    return caught.value


async def decoding(start_native: StartNative, **settings: object) -> tuple[NativeEngine, Driver]:
    """An engine in the middle of a long output."""
    engine = await start_native(**settings)
    driver = Driver(engine, TOKENIZER)
    sequence = await driver.open(driver.fill("prompt"), generate(400, stream=True, ignore_eos=True))
    await driver.told(sequence, 3)
    return engine, driver


# --- Death --------------------------------------------------------------------------------------------------


async def test_a_killed_process_is_told_as_a_failure_that_names_the_signal(start_native: StartNative):
    engine, driver = await decoding(start_native)
    assert engine.pid is not None
    os.kill(engine.pid, signal.SIGKILL)
    assert "was killed by SIGKILL, as the system does where memory runs out" in (await lost(driver)).message
    with pytest.raises(EngineFailed, match="SIGKILL"):
        await engine.send([])
    await driver.close()


async def test_a_process_that_a_signal_without_a_name_ends_is_told_of_with_its_number():
    number = signal.SIGRTMIN + 6
    engine = engine_of(f"import os; os.kill(os.getpid(), {number})")
    with pytest.raises(EngineFailed, match=f"was killed by signal {number}"):
        await engine.start()


async def test_a_process_that_ends_by_itself_is_quoted_in_the_log_alone(caplog: pytest.LogCaptureFixture):
    engine = engine_of("import sys; print('no such luck', file=sys.stderr); sys.exit(3)")
    with pytest.raises(EngineFailed, match="exit code 3") as failed:
        await engine.start()
    assert "no such luck" in caplog.text
    assert "no such luck" not in failed.value.message
    assert "log" in failed.value.message


async def test_a_process_that_ends_no_line_is_heard_all_the_same(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    engine = engine_of("import sys; sys.stderr.write('ah! ' * 100_000); sys.exit(3)")
    with pytest.raises(EngineFailed, match="exit code 3"):
        await engine.start()
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    assert len(told) > 1
    assert caplog.text.count("ah!") >= 100_000


async def test_a_stopped_process_is_found_hung_and_killed(start_native: StartNative):
    engine, driver = await decoding(start_native)
    assert engine.pid is not None
    process = psutil.Process(engine.pid)
    process.suspend()
    assert "hung" in (await lost(driver)).message
    assert not process.is_running()
    await driver.close()


STUB = """
import time
from parrotserve.engines.worker import run_worker
from parrotserve.engines.base import EngineDescription, Heartbeat

class Stuck:
    idle = True
    def call_when_ready(self, wake): pass
    def prepare(self): pass
    def step(self): return []
    def handle(self, command): pass
    def heartbeat(self): return Heartbeat(running=1, steps=1)

class StuckOnceThereIsSomethingToDo(Stuck):
    def step(self): time.sleep(60)
    def handle(self, command): self.idle = False
    def heartbeat(self): return Heartbeat(steps=1)

class StuckInACommand(StuckOnceThereIsSomethingToDo):
    def handle(self, command): time.sleep(60)

def build(frame):
    print("loading, with a word on standard output")
    return EngineDescription(
        model="stub", context_length=1, cache_tokens=1, page_tokens=1, credits=1, capabilities=frozenset()
    ), Stuck()

run_worker(build)
"""


READY_BY_ITSELF = STUB.replace(
    "def build(frame):",
    """
import threading
from parrotserve.engines.base import EndStatus, SequenceEnded

class ReadyByItself(Stuck):
    def call_when_ready(self, wake): self.wake = wake
    def heartbeat(self): return Heartbeat()
    def handle(self, command):
        self.sequence = command.sequence
        threading.Timer(0.5, self.get_ready).start()
    def get_ready(self):
        self.idle = False
        self.wake()
    def step(self):
        if self.idle:
            return []
        self.idle = True
        return [SequenceEnded(sequence=self.sequence, epoch=1, status=EndStatus.DONE)]

def build(frame):""",
).replace("Stuck()", "ReadyByItself()")


async def ending(source: str) -> EndStatus:
    """How the one sequence of a stub ends; one that goes on for ever is given up by the driver."""
    engine = engine_of(source)
    await engine.start()
    driver = Driver(engine, TOKENIZER)
    sequence = await driver.open(driver.fill("x"))
    result = await driver.ended(sequence)
    await driver.close()
    return next(event.status for event in result.events if isinstance(event, SequenceEnded))


async def test_an_idle_engine_goes_on_when_something_gets_ready_without_a_command():
    assert await ending(READY_BY_ITSELF) is EndStatus.DONE


PREPARES = STUB.replace(
    "def build(frame):",
    """
from parrotserve.engines.base import EndStatus, SequenceEnded

class Prepares(Stuck):
    prepared = False
    sequence = None
    def call_when_ready(self, wake): self.wake = wake
    def heartbeat(self): return Heartbeat()
    def handle(self, command): self.sequence = command.sequence
    def prepare(self):
        self.prepared = True
        self.wake()
    def step(self):
        if not self.prepared or self.sequence is None:
            return []
        sequence, self.sequence = self.sequence, None
        return [SequenceEnded(sequence=sequence, epoch=1, status=EndStatus.DONE)]

def build(frame):""",
).replace("Stuck()", "Prepares()")


async def test_what_is_needed_sooner_or_later_is_made_while_there_is_nothing_to_do():
    assert await ending(PREPARES) is EndStatus.DONE


async def test_a_step_that_takes_too_long_is_found_hung():
    engine = engine_of(STUB, heartbeat_seconds=0.5, stuck_seconds=1.0)
    await engine.start()
    assert "a step took" in (await lost(Driver(engine, TOKENIZER))).message
    await engine.close()


@pytest.mark.parametrize("core", ["StuckOnceThereIsSomethingToDo", "StuckInACommand"])
async def test_the_first_step_after_a_rest_is_found_hung_too_and_what_is_read_before_it(core: str):
    engine = engine_of(STUB.replace("Stuck()", f"{core}()"), heartbeat_seconds=0.5, stuck_seconds=1.0)
    await engine.start()
    await asyncio.sleep(2.0)
    await engine.send([Open(sequence=RequestId("a"), epoch=1, segments=(Fill(tokens=(1,)),), salt="")])
    async with asyncio.timeout(10):
        assert "a step took" in (await lost(Driver(engine, TOKENIZER))).message
    await engine.close()


async def test_a_fault_of_building_that_nobody_foresaw_is_a_refusal():
    engine = engine_of(STUB.replace('print("loading', 'raise KeyError("a tensor")  # ("'))
    with pytest.raises(EngineRefused, match="cannot be built \\(KeyError: 'a tensor'\\)"):
        await engine.start()
    await engine.close()


async def test_what_libraries_print_does_not_disturb_the_protocol():
    engine = engine_of(STUB)
    assert (await engine.start()).model == "stub"
    await engine.close()


async def test_warnings_of_the_process_are_warnings_of_the_log(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    caplog.set_level(logging.INFO, logger="parrotserve")
    engine = engine_of(STUB.replace('print("', 'print("WARNING: slow\\n'))
    await engine.start()
    await engine.close()
    assert [record.levelname for record in caplog.records if record.message.endswith(": slow")] == ["WARNING"]
    assert any(record.levelname == "INFO" and "loading" in record.message for record in caplog.records)


async def test_a_process_that_is_never_ready_is_given_up():
    engine = engine_of("import time; time.sleep(60)", start_seconds=0.2)
    with pytest.raises(EngineFailed, match="not ready"):
        await engine.start()


async def test_a_process_that_talks_nonsense_is_given_up():
    engine = engine_of("import sys; print('hello, world! how are you?', flush=True); sys.stdin.read()")
    with pytest.raises(EngineFailed, match="protocol"):
        await engine.start()


async def test_a_command_that_does_not_exist_is_a_failure_to_start():
    engine = ProcessEngine(EngineId("none"), ["/no/such/program"], {})
    with pytest.raises(EngineFailed, match="could not be started"):
        await engine.start()


async def test_a_process_that_cannot_read_its_commands_ends():
    engine = engine_of(STUB)
    await engine.start()
    driver = Driver(engine, TOKENIZER)
    await engine.send(["no command"])  # type: ignore[list-item]
    assert "exit code 1" in (await lost(driver)).message
    await driver.close()


async def test_models_that_cannot_be_read_are_told_as_such(tmp_path: Path):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF and nothing else")
    engine = NativeEngine(EngineId("broken"), "broken", ModelFiles("broken", broken, ModelFormat.GGUF))
    with pytest.raises(MalformedModel):
        await engine.start()
    await engine.close()


async def test_a_cache_too_small_for_a_page_is_refused(start_native: StartNative):
    with pytest.raises(EngineRefused, match="one page"):
        await start_native(kv_bytes=100)


async def test_an_engine_that_was_not_started_says_so():
    engine = engine_of("")
    with pytest.raises(EngineFailed, match="not been started"):
        engine.describe()
    with pytest.raises(EngineFailed, match="not been started"):
        await engine.send([])
    await engine.close()


# --- The end ------------------------------------------------------------------------------------------------


async def test_closing_ends_the_process_and_the_events_and_may_be_done_twice(start_native: StartNative):
    engine, driver = await decoding(start_native)
    assert engine.pid is not None
    process = psutil.Process(engine.pid)
    await driver.close()
    await engine.close()
    assert not process.is_running()
    with pytest.raises(EngineFailed, match="closed"):
        await engine.send([])


async def test_closing_ends_a_stopped_process_too(start_native: StartNative):
    engine, driver = await decoding(start_native)
    assert engine.pid is not None
    process = psutil.Process(engine.pid)
    process.suspend()
    await driver.close()
    assert not process.is_running()


async def test_a_start_that_is_cancelled_leaves_nothing_running():
    engine = engine_of("import time; time.sleep(60)")
    starting = asyncio.create_task(engine.start())
    while engine.pid is None:
        await asyncio.sleep(0)
    process = psutil.Process(engine.pid)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert not process.is_running()


def test_a_process_ends_when_its_service_does(tiny_model: ModelFiles):
    process = subprocess.Popen(
        [sys.executable, "-m", "parrotserve.engines.native"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    settings = NativeSettings(kv_bytes=1 << 20)
    launch = Launch(model="tiny", path=str(tiny_model.path), format=tiny_model.format, settings=settings)
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(encode(launch))
        process.stdin.flush()
        assert process.stdout.read(4)
        for number in (signal.SIGINT, signal.SIGTERM):  # what all of a service's processes are told
            process.send_signal(number)
        process.stdin.close()
        assert process.wait(timeout=30) == 0


# --- Both directions hold back ------------------------------------------------------------------------------


async def test_a_consumer_that_does_not_keep_up_holds_the_engine_back_and_loses_nothing(start_native: StartNative):
    engine = await start_native()
    for name in ("a", "b"):
        fill = Fill(tokens=tuple(TOKENIZER.encode("prompt")))
        output = generate(400, stream=True, ignore_eos=True)
        await engine.send([Open(sequence=RequestId(name), epoch=1, segments=(fill, output), salt="")])
    while not engine.held_back:
        await asyncio.sleep(0.01)
    driver = Driver(engine, TOKENIZER)
    first, second = [await driver.ended(RequestId(name)) for name in ("a", "b")]
    assert not engine.held_back
    assert first.told_tokens == second.told_tokens == first.tokens
    assert len(first.tokens) == 400
    await driver.close()


async def test_sending_waits_while_the_process_does_not_read(start_native: StartNative):
    engine = await start_native()
    driver = Driver(engine, TOKENIZER)
    assert engine.pid is not None
    process = psutil.Process(engine.pid)
    process.suspend()
    big = driver.fill("x" * 400)
    sending = asyncio.create_task(_send_many(driver, big.tokens or ()))
    done, _ = await asyncio.wait([sending], timeout=0.5)
    assert not done
    process.resume()
    await sending
    await driver.settle()
    await driver.close()


async def _send_many(driver: Driver, tokens: tuple[int, ...]) -> None:
    nobody = driver.fresh()
    for _ in range(2000):
        await driver.extend(nobody, 0, tokens)
