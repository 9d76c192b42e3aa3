"""`parrot doctor`: what it says of a machine, and of what is wrong with it."""

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from parrotserve.cli.app import app
from parrotserve.doctor import installed, reach
from parrotserve.engines.native import kernels, memory
from parrotserve.protocol import PROTOCOL_HEADER, PROTOCOL_VERSION
from parrotserve.tenancy.limits import Limits
from parrotserve.tenancy.store import TenantStore

Answer = Callable[[str, str | None], tuple[int, dict[str, str]]]
Doctor = Callable[..., Result]


@pytest.fixture
def silent_index() -> Iterator[str]:
    """A package index that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/simple"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, silent_index: str):
    """An empty cache, no settings, and nothing on the network."""
    monkeypatch.setenv("PARROT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PARROT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("PARROT_CONFIG", "")
    monkeypatch.setenv("PARROT_INDEX_URL", silent_index)
    monkeypatch.setenv("PARROT_MODELS", "fake")
    monkeypatch.setattr(reach, "PATIENCE", 0.05)
    monkeypatch.setenv("COLUMNS", "500")


@pytest.fixture
def doctor() -> Doctor:
    return lambda *arguments: CliRunner().invoke(app, ["doctor", *arguments])


def findings(result: Result) -> dict[str, dict[str, Any]]:
    return {one["subject"]: one for one in json.loads(result.output)["findings"]}


def test_a_healthy_machine_is_told_and_exits_with_0(doctor: Doctor):
    result = doctor()
    assert result.exit_code == 0, result.output
    assert "Everything works" in result.output
    for subject in (
        "Python",
        "Parrot",
        "Extension",
        "CPU",
        "Backend",
        "Threads",
        "Memory",
        "Settings",
        "Cache",
        "Data",
    ):
        assert any(line.split()[1] == subject for line in result.output.splitlines() if line), subject


def test_json_says_the_same_for_programs(doctor: Doctor):
    result = doctor("--json")
    told = findings(result)
    assert json.loads(result.output)["ok"] is True
    assert told["Python"]["details"]["executable"] == sys.executable
    assert told["Memory"]["details"]["default_kv_bytes"] <= told["Memory"]["details"]["usable_bytes"] / 8
    assert told["Index"]["details"] == {"index": told["Index"]["details"]["index"], "reachable": False, "needed": False}


@pytest.mark.skipif(not kernels.variants(), reason="the compiled extension is not installed here")
def test_it_says_which_variant_was_chosen_and_how_fast_all_are(doctor: Doctor):
    details = findings(doctor("--json"))["Backend"]["details"]
    assert details["variant"] == kernels.chosen_variant()
    assert details["reason"]
    assert list(details["gflops"]) == list(kernels.variants())


def test_an_index_that_hangs_matters_only_where_a_model_is_missing(doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    assert findings(doctor("--json"))["Index"]["verdict"] == "good"
    monkeypatch.setenv("PARROT_MODELS", "default")
    result = doctor()
    assert result.exit_code == 1
    assert "no answer within" in result.output
    assert "PARROT_INDEX_URL" in result.output


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("PARROT_THREDS", "2", "Did you mean PARROT_THREADS?"),
        ("PARROT_THREADS", "many", "write a whole number"),
        ("PARROT_KV_MEMORY", "900000GiB", "kv_memory = 900000GiB does not fit the "),
        ("PARROT_MODELS", "/nowhere/model.gguf", "There is no model"),
        ("PARROT_DATA", "/proc/parrot", "cannot be written to"),
        ("PARROT_HOST", "0.0.0.0", "'0.0.0.0' can be reached from other machines, and there are no keys yet"),
        ("PARROT_HOST", "a..b", "'a..b' does not resolve to an address"),
        ("PARROT_URL", "http://127.0.0.1:1", "does not answer"),
        ("PARROT_URL", "127.0.0.1:8765", "'127.0.0.1:8765' is not the URL of a service; write http://127.0.0.1:8765."),
    ],
)
def test_what_is_wrong_is_named_with_what_to_do(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, told: str
):
    monkeypatch.setenv(variable, value)
    result = doctor()
    assert result.exit_code == 1
    (broken,) = [line for line in result.output.splitlines() if line.startswith("X")]
    assert told in broken
    assert "->" in result.output
    assert "1 problem; see" in result.output


@pytest.mark.parametrize("text", ['host = "0.0.0.0"', 'host = "a..b"', 'data = "/proc/parrot"'])
def test_a_setting_of_the_file_is_to_be_corrected_there(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str
):
    file = tmp_path / "mine.toml"
    file.write_text(text)
    monkeypatch.setenv("PARROT_CONFIG", str(file))
    if text.startswith("data"):
        monkeypatch.delenv("PARROT_DATA")
    told = findings(doctor("--json"))["Data"]
    assert told["verdict"] == "broken"
    assert f"{text.partition(' ')[0]} in {file}" in told["advice"]


def test_a_cache_that_cannot_be_written_matters_only_where_a_model_is_missing(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PARROT_CACHE", "/proc/parrot")
    told = findings(doctor("--json"))["Cache"]
    assert (told["verdict"], told["found"].endswith("nothing has to be fetched")) == ("good", True)
    monkeypatch.setenv("PARROT_MODELS", "default")
    told = findings(doctor("--json"))["Cache"]
    assert (told["verdict"], "cannot be written to" in told["found"]) == ("broken", True)


def test_the_tenants_of_the_data_folder_are_looked_at(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    doctor()
    assert not (tmp_path / "data").exists()
    monkeypatch.setenv("PARROT_HOST", "0.0.0.0")
    with contextlib.closing(TenantStore(tmp_path / "data")) as store:
        store.create_tenant("search", Limits())
        store.create_key("search")
        store.revoke_key(store.create_key("search")[0])
    told = findings(doctor("--json"))["Data"]
    assert (told["verdict"], told["details"]["tenants"], told["details"]["keys"]) == ("good", 1, 1)
    assert told["found"].endswith(", 1 tenant, 1 valid key")
    (tmp_path / "data" / "tenants.db").write_text("something else, long enough to be no database header at all")
    told = findings(doctor("--json"))["Data"]
    assert told["verdict"] == "broken"
    assert "file is not a database" in told["found"]


def test_kv_caches_that_do_not_fit_together_are_named(doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "usable_memory", lambda: 8 << 30)
    monkeypatch.setenv("PARROT_MODELS", "default")
    monkeypatch.setenv("PARROT_KV_MEMORY", "3GiB")
    monkeypatch.setenv("PARROT_ENGINES", "2")
    assert findings(doctor("--json"))["Settings"]["verdict"] == "good"
    monkeypatch.setenv("PARROT_ENGINES", "3")
    told = findings(doctor("--json"))["Settings"]
    assert told["verdict"] == "broken"
    assert "kv_memory = 3GiB for each of 3 engines does not fit the 8.6 GB of memory here" in told["found"]
    assert told["advice"] == "Lower PARROT_KV_MEMORY or PARROT_ENGINES."


def test_more_threads_than_cores_are_noticed(doctor: Doctor, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARROT_THREADS", "1024")
    result = doctor()
    assert result.exit_code == 0
    assert "wait for one another" in result.output


def without_extension(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installed, "_EXTENSIONS", ("parrotserve._no_such_extension",))
    monkeypatch.setattr(kernels, "_kernels", None)
    kernels.measured_variants.cache_clear()
    kernels.chosen_variant.cache_clear()


@pytest.fixture
def no_extension(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As after an install without a compiler."""
    without_extension(monkeypatch)
    yield
    kernels.measured_variants.cache_clear()
    kernels.chosen_variant.cache_clear()


@pytest.mark.usefixtures("no_extension")
def test_without_the_extension_everything_works_on_the_reference_backend(doctor: Doctor):
    result = doctor()
    assert result.exit_code == 0
    assert "reference (NumPy, float32)" in result.output
    assert "Install a C++17 compiler" in result.output


@pytest.mark.usefixtures("no_extension")
@pytest.mark.parametrize(("variable", "value"), [("PARROT_BACKEND", "kernels"), ("PARROT_WEIGHTS", "int8")])
def test_settings_that_need_the_extension_are_broken_without_it(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
):
    monkeypatch.setenv(variable, value)
    assert doctor().exit_code == 1


def test_secrets_are_not_shown(doctor: Doctor, monkeypatch: pytest.MonkeyPatch, silent_index: str):
    monkeypatch.setenv("PARROT_API_KEY", "sk-hidden")
    monkeypatch.setenv("PARROT_INDEX_URL", silent_index.replace("//", "//user:hidden@"))
    shown = doctor().output + doctor("--json").output
    assert "PARROT_API_KEY" in shown
    assert "hidden" not in shown


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """Gives answers to requests, by path and key; the URL."""
    monkeypatch.setattr(reach, "PATIENCE", 10.0)
    monkeypatch.setenv("PARROT_INDEX_URL", "http://127.0.0.1:1")
    with contextlib.ExitStack() as opened:

        def begin(answer: Answer) -> str:
            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    status, headers = answer(self.path, self.headers.get("Authorization"))
                    self.send_response(status)
                    for name, value in headers.items():
                        self.send_header(name, value)
                    self.end_headers()

                def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                    """Not to standard error."""

            server = opened.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            opened.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_address[1]}"

        yield begin


def open_service(path: str, _: str | None) -> tuple[int, dict[str, str]]:
    return (200 if path in ("/healthz", "/v1/models") else 404), {PROTOCOL_HEADER: str(PROTOCOL_VERSION)}


@pytest.mark.parametrize("end", ["", "/", "/v1"])
def test_a_service_that_answers_is_good_by_every_address_that_clients_take(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Answer], str], end: str
):
    monkeypatch.setenv("PARROT_URL", serve(open_service) + end)
    told = findings(doctor("--json"))["Service"]
    assert (told["verdict"], told["details"]["reachable"]) == ("good", True)


def test_what_answers_and_is_no_service_of_parrot_is_told_as_such(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Answer], str]
):
    monkeypatch.setenv("PARROT_URL", url := serve(lambda _, __: (404, {})))
    told = findings(doctor("--json"))["Service"]
    assert (told["verdict"], told["details"]["reachable"]) == ("broken", True)
    assert told["found"] == f"{url} answered 404, but not as a Parrot service does"
    assert told["advice"].startswith("Correct PARROT_URL")


@pytest.mark.parametrize(
    ("key", "told"),
    [
        (None, "needs an API key, and PARROT_API_KEY is not set"),
        (" ", "needs an API key, and PARROT_API_KEY is not set"),
        ("wrong", "does not accept the key in PARROT_API_KEY"),
        ("clé", "The API key has characters that no key has"),
        ("right", None),
    ],
)
def test_a_service_with_keys_is_good_for_those_who_have_one(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Answer], str], key: str | None, told: str | None
):
    def closed(path: str, authorization: str | None) -> tuple[int, dict[str, str]]:
        known = path == "/healthz" or authorization == "Bearer right"
        return (200 if known else 401), {PROTOCOL_HEADER: str(PROTOCOL_VERSION)}

    monkeypatch.setenv("PARROT_URL", serve(closed))
    monkeypatch.delenv("PARROT_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("PARROT_API_KEY", key)
    result = doctor("--json")
    finding = findings(result)["Service"]
    assert (finding["verdict"], result.exit_code) == (("broken", 1) if told else ("good", 0))
    assert not told or (told in finding["found"] and "PARROT_API_KEY" in finding["advice"])
    assert "wrong" not in finding["found"]


def test_https_to_a_service_without_it_is_told_with_the_url_to_write(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, serve: Callable[[Answer], str]
):
    url = serve(open_service)
    monkeypatch.setenv("PARROT_URL", url.replace("http:", "https:"))
    told = findings(doctor("--json"))["Service"]
    assert (told["verdict"], told["advice"]) == ("broken", f"What answers there speaks plain HTTP: write {url}.")
