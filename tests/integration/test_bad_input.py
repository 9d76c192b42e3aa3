"""Bad input gets a clear, typed error and harms nothing else: embedded, over HTTP, raw and on the command line."""

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from tiny_model import CONTEXT, write_tiny_model
from typer.testing import CliRunner

import Parrot as P
from parrotserve.cli.main import app
from parrotserve.config import ServiceConfig
from parrotserve.embedded import EmbeddedTransport
from parrotserve.errors import (
    AlreadyProduced,
    Cancelled,
    ContextExceeded,
    DeclarationError,
    ForeignVariable,
    GetTimeout,
    InvalidSampling,
    InvalidSchema,
    InvalidTransform,
    MalformedModel,
    NativeCallFailed,
    ServiceUnavailable,
    TemplateError,
    UnknownModel,
)
from parrotserve.protocol import ErrorAnswer, ErrorBody
from parrotserve.sdk.connection import use
from parrotserve.sdk.http import HttpTransport

PARROT = (sys.executable, "-m", "parrotserve.cli.main")
OTHER_SERVER = """
import http.server, sys
server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
print(f"Nobody's Parrot serves at http://127.0.0.1:{server.server_port} .", file=sys.stderr, flush=True)
server.serve_forever()
"""
SLOW_SERVICE = """
import sys
from functools import partial
from parrotserve.config import ServiceConfig
from parrotserve.engines.fake import FakeEngine
from parrotserve.runtime.catalog import fake_model
from parrotserve.server import run
import asyncio
make = partial(FakeEngine, step_seconds=0.02, script=lambda prompt: "word " * 1000)
serving = run.serve_until_stopped(
    ServiceConfig(models=("fake",), port=0),
    announce=lambda line: print(line, file=sys.stderr, flush=True),
    load=lambda *_: fake_model(make),
)
asyncio.run(serving)
"""


@P.SemanticFunction(max_tokens=8)
def Echo(text: Any):
    """Say: {{input:text}} {{output:said}}"""


@contextmanager
def serving(*command: str) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """A service in a process of its own: its URL and the process, ended at the end."""
    with subprocess.Popen([sys.executable, *command], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            banner = next((line for line in process.stderr if "Parrot serves" in line), "it ended")
            yield banner[banner.index("http://") :].split()[0], process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with real weights."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_model(folder)
    return folder


@pytest.fixture(scope="module")
def url(tiny: Path) -> Iterator[str]:
    """`parrot serve` with a model that is fake and one that is not."""
    with serving(*PARROT[1:], "serve", "--port", "0", "--model", "fake", "--model", str(tiny)) as (address, _):
        yield address


@pytest.fixture(scope="module", params=["embedded", "served"])
def connection(request: pytest.FixtureRequest, tiny: Path) -> Iterator[P.Connection]:
    """The same models in this process, or behind HTTP."""
    if request.param == "served":
        with P.connect(request.getfixturevalue("url")) as connected:
            yield connected
    else:
        with use(EmbeddedTransport(ServiceConfig(models=("fake", str(tiny)), threads=1))) as connected:
            yield connected


@pytest.fixture
def service(connection: P.Connection) -> Iterator[None]:
    """Where programs run; whatever a test does to it, somebody else must not notice."""
    with unharmed():
        yield


@contextmanager
def unharmed() -> Iterator[None]:
    """A session with a request that waits while something happens within; it must not notice."""
    with P.Session():
        later = P.SemanticVariable(name="later")
        waiting, said = Echo(later), Echo("something").get()
        yield
        later.set("something")
        assert waiting.get(timeout=30) == Echo("something").get(timeout=30) == said


def declared(docstring: str, **options: Any) -> P.SemanticFunction:
    def function(text: str) -> None: ...

    function.__doc__ = docstring
    return P.SemanticFunction(**options)(function)


class TestDeclarations:
    @pytest.mark.parametrize(
        ("docstring", "error", "message"),
        [
            ("{{input:txt}} {{output:y}}", TemplateError, r"no parameter 'txt'; did you mean 'text'\?$"),
            ("{{input:text}} {{output:y}} {{output:y}}", TemplateError, "'y' appears twice"),
            ("{{input:text}}", TemplateError, "has no output"),
            ("{{output:y}}", TemplateError, "'text' is not in the docstring"),
            ("{{input:text} {{output:y}}", TemplateError, "is no placeholder"),
            ("{{imput:text}} {{output:y}}", TemplateError, "did you mean 'input'"),
            ("{{role:users}} {{input:text}} {{output:y}}", TemplateError, "did you mean 'user'"),
            ("{{input:text | stripp}} {{output:y}}", InvalidTransform, "there are: .*strip"),
            ("", TemplateError, "no docstring"),
        ],
    )
    def test_templates(self, docstring: str, error: type[Exception], message: str):
        with pytest.raises(error, match=message):
            declared(docstring)

    @pytest.mark.parametrize(
        ("option", "value", "error"),
        [
            ("max_tokens", 0, InvalidSampling),
            ("max_tokens", -1, InvalidSampling),
            ("max_tokens", "8", InvalidSampling),
            ("max_tokens", 1.5, InvalidSampling),
            ("max_tokens", None, InvalidSampling),
            ("temperature", -1, InvalidSampling),
            ("stop", [""], InvalidSampling),
            ("logit_bias", {-1: 1.0}, InvalidSampling),
            ("schema", "{}", InvalidSchema),
            ("schema", {"enum": {1, 2}}, InvalidSchema),
            ("model", 3, DeclarationError),
        ],
    )
    def test_options(self, option: str, value: object, error: type[Exception]):
        with pytest.raises(error, match=option):
            declared("{{input:text}} {{output:y}}", **{option: value})

    def test_misspelt_options(self):
        with pytest.raises(DeclarationError, match=r"'max_token'; did you mean 'max_tokens'\?"):
            declared("{{input:text}} {{output:y}}", max_token=3)

    @pytest.mark.parametrize(
        "call",
        [
            lambda: Echo(),
            lambda: Echo("a", "b"),
            lambda: Echo(txt="a"),
            lambda: Echo(None),
            lambda: Echo([None, P.SemanticVariable("x")]),
        ],
    )
    def test_arguments(self, call: Callable[[], object]):
        with pytest.raises(TypeError, match="text"):
            call()

    def test_variables_without_a_text(self):
        with pytest.raises(TypeError, match="no text here yet"):
            f"{P.SemanticVariable(name='task')}"


@pytest.mark.usefixtures("service")
class TestPrograms:
    def test_a_produced_variable_of_another_session(self):
        with P.Session():
            theirs = Echo("x")
            with P.Session(), pytest.raises(ForeignVariable, match="pass the text that `get"):
                Echo(theirs)
            theirs.get()

    def test_setting_a_produced_variable(self):
        said = Echo("x")
        with pytest.raises(AlreadyProduced, match="said"):
            said.set("y")
        assert said.get()

    def test_setting_a_variable_twice(self):
        task = P.SemanticVariable(name="task")
        task.set("x")
        with pytest.raises(AlreadyProduced, match="task"):
            task.set("y")

    @pytest.mark.parametrize("real", [False, True], ids=["fake", "tiny"])
    def test_a_prompt_longer_than_the_context(self, tiny: Path, real: bool):
        tell = declared("{{input:text}} {{output:y}}", max_tokens=4, model=str(tiny) if real else None)
        long, short = tell("x" * (CONTEXT if real else 10_000)), tell("x")
        with pytest.raises(ContextExceeded, match="Shorten the prompt"):
            Echo(long).get()
        assert short.get()

    def test_an_output_longer_than_the_context_is_cut(self, tiny: Path):
        tell = declared("{{input:text}} {{output:y}}", max_tokens=10_000, ignore_eos=True, model=str(tiny))
        said = tell("x" * (CONTEXT - 20))
        assert said.get()
        assert said.finish_reason == "length"

    @pytest.mark.parametrize("name", ["gpt-9", "/no/such/folder", "/etc/passwd", ""])
    def test_an_unknown_model(self, name: str):
        bad, good = declared("{{input:text}} {{output:y}}", model=name)("x"), Echo("x")
        with pytest.raises(UnknownModel, match="fake"):
            bad.get()
        assert good.get()

    @pytest.mark.parametrize(
        "schema", [{"type": "bogus"}, {"type": "string", "pattern": "(["}, {"$ref": "#/nowhere"}], ids=str
    )
    def test_a_schema_that_cannot_be_enforced(self, tiny: Path, schema: dict[str, Any]):
        bad, good = declared("{{input:text}} {{output:y}}", model=str(tiny), schema=schema)("x"), Echo("x")
        with pytest.raises(InvalidSchema, match=r"'function' .*cannot be enforced"):
            bad.get()
        assert good.get()

    def test_a_native_function_that_raises(self):
        @P.NativeFunction
        def Divide(text: str) -> float:
            return 1 / 0

        broken = Divide(Echo("x"))
        below = Echo(broken)
        with pytest.raises(NativeCallFailed, match="Divide raised ZeroDivisionError"):
            below.get()
        with pytest.raises(NativeCallFailed) as failure:
            broken.get()
        assert isinstance(failure.value.__cause__, ZeroDivisionError)

    def test_a_native_function_that_never_returns(self):
        over = threading.Event()

        @P.NativeFunction(timeout=0.1)
        def Hang(text: str) -> str:
            over.wait()
            return text

        hanging = Echo(Hang("x"))
        with pytest.raises(NativeCallFailed, match=r"no result came within its timeout of 0\.1 s"):
            hanging.get(timeout=30)
        over.set()

    def test_a_native_function_that_returns_nothing(self):
        @P.NativeFunction
        def Forget(text: str) -> None: ...

        with pytest.raises(NativeCallFailed, match="returned nothing"):
            Forget("x").get()

    def test_a_failure_that_is_tried_again(self):
        answers: Iterator[str] = iter(())

        @P.NativeFunction
        def Flaky(text: str) -> str:
            return next(answers)

        below = Echo(Flaky("x"))
        with pytest.raises(NativeCallFailed):
            below.get()
        answers = iter(["at last"])
        below.retry()
        assert below.get() == Echo("at last").get()

    @pytest.mark.parametrize("timeout", [0, 0.05])
    def test_waiting_for_what_does_not_come(self, timeout: float):
        task = P.SemanticVariable(name="task")
        said = Echo(task)
        for wait in (said.get, lambda **options: P.gather(said, **options)):
            with pytest.raises(GetTimeout, match="nothing was cancelled"):
                wait(timeout=timeout)
        task.set("x")
        assert said.get()

    @pytest.mark.parametrize("timeout", [-1, float("nan")])
    def test_waiting_for_no_length_of_time(self, timeout: float):
        with pytest.raises(DeclarationError, match="timeout"):
            Echo("x").get(timeout=timeout)

    def test_asking_for_what_is_no_criteria(self):
        with pytest.raises(DeclarationError, match="'FAST' is none of LATENCY"):
            Echo("x").get(perf="FAST")

    def test_reading_after_the_session_ended(self):
        with P.Session():
            read, unread = Echo("x"), Echo(P.SemanticVariable(name="never"))
            text = read.get()
        assert read.get() == text
        with pytest.raises(Cancelled, match="ended before 'said' was read"):
            unread.get()

    def test_text_that_is_no_unicode(self):
        bad, good = Echo("\ud83d"), Echo("x")
        with pytest.raises(DeclarationError, match="lone surrogate"):
            bad.get()
        assert good.get()

    @pytest.mark.parametrize("text", ["", " ", "\0", "🦜 naïve 日本語 \u202e", "{{input:x}}", "<|end|>"], ids=ascii)
    def test_odd_text_is_no_bad_input(self, text: str):
        assert Echo(text).get()

    def test_gathering_what_is_not_there(self):
        assert P.gather() == P.gather([]) == []
        with pytest.raises(TypeError, match="not str"):
            P.gather("text")

    def test_get_within_a_running_event_loop(self):
        async def main() -> str:
            return Echo("x").get()

        assert asyncio.run(main()) == Echo("x").get()


class TestModels:
    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("empty.gguf", b"", "is empty"),
            ("short.gguf", b"GGUF\x03\0\0\0\x10", "truncated or damaged"),
            ("counts.gguf", b"GGUF\x03\0\0\0" + b"\xff" * 64, "truncated or damaged"),
            ("noise.gguf", bytes(range(256)), "not a GGUF file"),
            ("version.gguf", b"GGUF\x63\0\0\0" + bytes(64), "version is 99"),
        ],
    )
    def test_damaged_gguf(self, tmp_path: Path, name: str, content: bytes, message: str):
        (tmp_path / name).write_bytes(content)
        transport = EmbeddedTransport(ServiceConfig(models=(str(tmp_path / name),)))
        with use(transport), pytest.raises(MalformedModel, match=rf"{name}.*{message}"):
            Echo("x").get()

    def test_truncated_weights_are_found_by_the_engine(self, tmp_path: Path):
        write_tiny_model(tmp_path)
        weights = tmp_path / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1000])
        before = set(psutil.Process().children())
        transport = EmbeddedTransport(ServiceConfig(models=(str(tmp_path),), threads=1))
        with use(transport), pytest.raises(MalformedModel, match=r"model\.safetensors"):
            Echo("x").get()
        assert set(psutil.Process().children()) <= before

    def test_a_folder_without_a_model(self, tmp_path: Path):
        transport = EmbeddedTransport(ServiceConfig(models=(str(tmp_path),)))
        with use(transport), pytest.raises(UnknownModel, match=r"lacks config\.json, tokenizer\.json"):
            Echo("x").get()


class TestConnections:
    @pytest.mark.parametrize("address", ["localhost:8000", "ftp://host", "http://", "http://[::1", " "])
    def test_what_is_no_url(self, address: str):
        with pytest.raises(ServiceUnavailable, match="write http://"):
            P.connect(address)

    def test_nobody_there(self):
        with P.connect("http://127.0.0.1:9"), pytest.raises(ServiceUnavailable, match="parrot serve"):
            Echo("x").get()

    def test_somebody_else_there(self):
        with (
            serving("-c", OTHER_SERVER) as (address, _),
            P.connect(address),
            pytest.raises(ServiceUnavailable, match="is not a Parrot service"),
        ):
            Echo("x").get()

    def test_a_service_that_ends_in_mid_stream(self):
        with serving("-c", SLOW_SERVICE) as (address, process), use(HttpTransport(address, patience=0.3)):
            pieces = declared("{{input:text}} {{output:y}}", max_tokens=5000)("x").stream()
            assert "word ".startswith(next(pieces).strip()[:4])
            process.kill()
            with pytest.raises(ServiceUnavailable, match="went away"):
                list(pieces)


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client, P.connect(url):
        yield client


@pytest.fixture
def http(client: httpx.Client) -> Iterator[httpx.Client]:
    with unharmed():
        yield client


def refused(answer: httpx.Response) -> tuple[int, str]:
    """The status and code of an error, which has the one shape and no traceback."""
    error = ErrorAnswer.model_validate_json(answer.content).error
    assert "Traceback" not in answer.text
    return answer.status_code, error.code


def request(name: str, *segments: tuple[str, Any], **options: Any) -> dict[str, Any]:
    return {
        "id": name,
        "segments": [
            {"kind": kind, ("text" if kind == "text" else "variable"): what} | options.get(kind, {})
            for kind, what in segments
        ],
        **{key: value for key, value in options.items() if key == "model"},
    }


@pytest.mark.usefixtures("http")
class TestExchanges:
    @pytest.mark.parametrize(
        ("requests", "status", "code"),
        [
            ([request("r", ("input", "a"), ("output", "a"))], 422, "invalid_graph"),
            (
                [request("r", ("input", "a"), ("output", "b")), request("q", ("input", "b"), ("output", "a"))],
                422,
                "invalid_graph",
            ),
            ([request("r", ("text", "x"), ("output", "a"), ("output", "a"))], 422, "invalid_graph"),
            ([request("r", ("output", "a")), request("q", ("output", "a"))], 422, "invalid_graph"),
            ([request("r", ("text", "x"))], 422, "invalid_graph"),
            ([request("r", ("output", "undeclared"))], 404, "unknown_object"),
            ([request("r", ("output", "a"), model="gpt-9")], 404, "unknown_model"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": 0}})], 422, "invalid_sampling"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": -1}})], 422, "invalid_sampling"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": "x"}})], 422, "invalid_request"),
            ([request("r", ("output", "a"), output={"sampling": {"max_tokens": 10**30}})], 422, "invalid_sampling"),
            (
                [request("r", ("output", "a"), output={"sampling": {"schema": {"type": "bogus"}}})],
                422,
                "invalid_schema",
            ),
            (
                [request("r", ("input", "a"), ("output", "b"), input={"transforms": [{"name": "nope"}]})],
                422,
                "invalid_transform",
            ),
            ([request("r/../r", ("output", "a"))], 422, "invalid_request"),
        ],
    )
    def test_a_refused_batch_leaves_nothing(
        self, http: httpx.Client, requests: list[dict[str, Any]], status: int, code: str
    ):
        body = {"session": "refused", "variables": [{"id": "a"}, {"id": "b"}], "requests": requests}
        assert refused(http.post("/v1/submit", json=body)) == (status, code)
        assert refused(http.get("/v1/sessions/refused")) == (404, "unknown_object")

    @pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"null"])
    def test_what_is_no_batch(self, http: httpx.Client, content: bytes):
        answer = http.post("/v1/submit", content=content, headers={"content-type": "application/json"})
        assert refused(answer) in {(422, "invalid_request"), (400, "invalid_request")}

    def test_a_session_of_somebody_else(self, http: httpx.Client):
        mine = {"variables": [{"id": "made"}], "requests": [request("maker", ("text", "x"), ("output", "made"))]}
        assert http.post("/v1/submit", json={"session": "mine"} | mine).status_code == 200
        theirs = {"variables": [{"id": "b"}], "requests": [request("r", ("input", "made"), ("output", "b"))]}
        assert refused(http.post("/v1/submit", json={"session": "other"} | theirs)) == (403, "foreign_variable")
        set_it = http.put("/v1/sessions/mine/variables/made", json={"value": "x"})
        assert refused(set_it) == (409, "already_produced")
        assert http.get("/v1/sessions/mine/variables/made").json()["value"]
        assert http.delete("/v1/sessions/mine").status_code == 204
        assert refused(http.delete("/v1/sessions/mine")) == (404, "unknown_object")

    def test_a_prompt_longer_than_the_context_fails_its_request(self, http: httpx.Client):
        body = {
            "session": "long",
            "variables": [{"id": "long"}],
            "requests": [request("longer", ("text", "x" * 10_000), ("output", "long"))],
        }
        assert http.post("/v1/submit", json=body).status_code == 200
        assert refused(http.get("/v1/sessions/long/variables/long")) == (422, "context_exceeded")
        view = http.get("/v1/sessions/long").json()
        assert [each["state"] for each in view["requests"]] == ["failed"]
        assert ErrorBody.model_validate(view["requests"][0]["error"]).code == "context_exceeded"
        http.delete("/v1/sessions/long")


PROGRAM = """
import Parrot as P

@P.SemanticFunction(max_tokens=8)
def Echo(text):
    '''Say: {{input:text}} {{output:said}}'''

@P.NativeFunction
def Divide(text):
    return 1 / 0

def wait():
    print("waiting:", Echo("x").get(), flush=True)
    return Echo(P.SemanticVariable(name="never")).get()

def divide():
    return Echo(Divide("x"))

def crash():
    return {}["key"]

def misdeclare():
    @P.SemanticFunction
    def Wrong(text):
        '''{{input:txt}} {{output:said}}'''
"""


class TestCommands:
    @pytest.fixture
    def program(self, tmp_path: Path) -> Path:
        (tmp_path / "program.py").write_text(PROGRAM)
        (tmp_path / "broken.py").write_text("def main(:\n    pass\n")
        return tmp_path / "program.py"

    @pytest.mark.parametrize(
        ("arguments", "code", "told"),
        [
            ("run {folder}/program.py:divide --model fake", 1, "Divide raised ZeroDivisionError"),
            ("run {folder}/program.py:misdeclare --model fake", 1, "did you mean 'text'?"),
            ("run {folder}/program.py:divide --model gpt-9", 1, "There is no model 'gpt-9'"),
            ("run {folder}/program.py:divide --url http://127.0.0.1:9", 1, "parrot serve"),
            ("run {folder}/program.py:divide --url 127.0.0.1:9", 1, "write http://127.0.0.1:9"),
            ("run {folder}/program.py:wiat", 2, "no function wiat"),
            ("run {folder}/progam.py", 2, "program.py"),
            ("run {folder}", 2, "is a folder"),
            ("runn {folder}/program.py", 2, "Did you mean 'run'?"),
            ("serve --model gpt-9", 1, "There is no model 'gpt-9'"),
            ("serve --port 70000", 2, "port must be between"),
        ],
    )
    def test_errors_are_told_in_words(self, program: Path, arguments: str, code: int, told: str):
        done = CliRunner().invoke(app, arguments.format(folder=program.parent).split())
        assert done.exit_code == code
        assert told in " ".join(done.stderr.replace("│", " ").split())
        assert "Traceback" not in done.output

    @pytest.mark.parametrize(("name", "line"), [("program.py:crash", '{}["key"]'), ("broken.py", "def main(:")])
    def test_errors_of_a_program_are_shown_from_the_program_on(self, program: Path, name: str, line: str):
        arguments = (*PARROT, "run", f"{program.parent}/{name}", "--model", "fake")
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert line in done.stderr
        assert "parrotserve" not in done.stderr

    def test_ctrl_c_in_a_blocking_get(self, program: Path, tiny: Path):
        arguments = (*PARROT, "run", f"{program}:wait", "--model", str(tiny))
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert any(line.startswith("waiting: ") for line in process.stdout)
            engines = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert errors.strip() == "Interrupted."
        assert engines
        assert psutil.wait_procs(engines, timeout=10)[1] == []
