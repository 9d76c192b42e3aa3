import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest

from parrotserve import config
from parrotserve.config import SETTINGS, ServiceConfig, default_file
from parrotserve.errors import DeclarationError
from parrotserve.settings import Setting, parse_size

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def no_file_of_the_developer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(config, "default_file", lambda: tmp_path / "config.toml")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults_serve_the_default_model_on_loopback():
    loaded = ServiceConfig.load(environment={})
    assert (loaded.models, loaded.engines, loaded.host, loaded.port) == (("smollm2-135m",), 1, "127.0.0.1", 8000)


def test_a_flag_wins_over_the_environment_which_wins_over_the_default():
    environment = {"PARROT_PORT": "9000", "PARROT_ENGINES": "2"}
    loaded = ServiceConfig.load(environment=environment, port=9100, engines=None)
    assert (loaded.port, loaded.engines) == (9100, 2)


def test_the_environment_wins_over_the_file_which_wins_over_the_default(tmp_path: Path):
    file = write(tmp_path / "mine.toml", "port = 9000\nengines = 2\nthreads = 3")
    loaded = ServiceConfig.load(file=file, environment={"PARROT_ENGINES": "4"}, threads=5)
    assert (loaded.port, loaded.engines, loaded.threads, loaded.host) == (9000, 4, 5, "127.0.0.1")


def test_the_file_is_the_one_given_else_the_environments_else_the_usual_one(tmp_path: Path):
    given, named = write(tmp_path / "a.toml", "port = 1"), write(tmp_path / "b.toml", "port = 2")
    write(tmp_path / "config.toml", "port = 3")
    environment = {"PARROT_CONFIG": str(named)}
    assert ServiceConfig.load(file=given, environment=environment).port == 1
    assert ServiceConfig.load(environment=environment).port == 2
    assert ServiceConfig.load(environment={}).port == 3


def test_the_usual_file_is_in_the_users_folder():
    assert default_file().parts[-2:] == ("parrot", "config.toml")


@pytest.mark.parametrize(
    ("written", "host"),
    [("[::1]", "::1"), ("::", "::"), ("fe80::1%eth0", "fe80::1%eth0"), ("localhost", "localhost")],
)
def test_an_address_may_be_written_as_in_urls(written: str, host: str):
    assert ServiceConfig.load(environment={"PARROT_HOST": written}).host == host


@pytest.mark.parametrize("written", ["[::1]:8000", "127.0.0.1:8000", "http://localhost", "[::1"])
def test_an_address_has_no_port_and_is_no_url(written: str):
    with pytest.raises(DeclarationError, match="without a port: that is --port"):
        ServiceConfig.load(environment={"PARROT_HOST": written})


def test_the_file_is_read_by_type(tmp_path: Path):
    text = """
        models = ["smollm2-135m", "/models/other.gguf"]
        kv_memory = "512MiB"
        max_body_bytes = 4096
        on_demand = true
        max_lease_seconds = 90
        threads = "2"
    """
    loaded = ServiceConfig.load(file=write(tmp_path / "mine.toml", text), environment={})
    assert loaded.models == ("smollm2-135m", "/models/other.gguf")
    assert (loaded.kv_memory, loaded.max_body_bytes) == (512 << 20, 4096)
    assert (loaded.on_demand, loaded.max_lease_seconds, loaded.threads) == (True, 90, 2)


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("modles = ['fake']", r"mine\.toml has an unknown setting 'modles'\. Did you mean models\?"),
        ("prot = 8000", r"Did you mean (port or tpot|tpot or port)\?"),
        ("kv-memory = '1GiB'", r"Did you mean kv_memory\?"),
        ("xyzzy = 1", "There are: backend, crowding, data"),
        ("[server]\nport = 1", "unknown setting 'server'"),
        ("port = true", r"port = True in .*mine\.toml: write a whole number"),
        ("port = 80.5", "write a whole number"),
        ("models = 3", "write names"),
        ("kv_memory = ['1GiB']", "write a size"),
        ("on_demand = 1", r"on_demand = 1 in .*mine\.toml: write true or false"),
        ("on_demand = 'maybe'", "write true or false"),
        ("port = 70000", "between 0 and 65535"),
        (f"kv_memory = {10**30}", "write a size"),
        (f"max_running = {10**30}", "max_running must be between 1 and 1000000"),
        (f"prefill_chunk = {10**30}", "prefill_chunk must be between 1 and 1000000"),
        ("\nport == 1", r"mine\.toml is not valid TOML: .*line 2"),
        ("x = " + "[" * 100_000, "not valid TOML"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, text: str, advice: str):
    with pytest.raises(DeclarationError, match=advice):
        ServiceConfig.load(file=write(tmp_path / "mine.toml", text), environment={})


def test_more_seconds_than_a_clock_counts_are_no_end(tmp_path: Path):
    file = write(tmp_path / "mine.toml", f"drain_seconds = {10**400}\nsandbox_seconds = inf\nmax_lease_seconds = 90")
    loaded = ServiceConfig.load(file=file, environment={})
    assert (loaded.drain_seconds, loaded.sandbox_seconds, loaded.max_lease_seconds) == (math.inf, math.inf, 90.0)


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe")
    for file, why in ((tmp_path / "missing.toml", "No such file"), (tmp_path, "directory"), (binary, "not UTF-8")):
        with pytest.raises(DeclarationError, match=why):
            ServiceConfig.load(file=file, environment={})


def test_a_usual_file_that_cannot_be_looked_for_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(config, "default_file", lambda: tmp_path / ("x" * 300) / "config.toml")
    with pytest.raises(DeclarationError, match=r"cannot be looked for: File name too long\. Set PARROT_CONFIG"):
        ServiceConfig.load(environment={})
    assert ServiceConfig.load(environment={"PARROT_CONFIG": "/dev/null"}) == ServiceConfig()


def test_the_page_has_every_setting_with_its_default():
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
    told = {row[0].strip(" `"): row for row in rows if len(row) == 5}
    assert told.keys() == {field.name for field in dataclasses.fields(ServiceConfig)}
    defaults = {SETTINGS[name].variable: row[3].strip(" `") for name, row in told.items() if "`" in row[3]}
    assert ServiceConfig.load(environment=defaults) == ServiceConfig()


@pytest.mark.parametrize("setting", SETTINGS.values(), ids=lambda setting: setting.name)
def test_a_shown_value_is_read_back(setting: "Setting"):
    if setting.default not in (None, ()):
        assert setting.kind.parse(setting.shown(setting.default)) == setting.default
    else:
        assert setting.unset


def test_the_environment_is_read_by_type():
    environment = {
        "PARROT_MODELS": "smollm2-135m, /models/other.gguf",
        "PARROT_KV_MEMORY": "512MiB",
        "PARROT_ON_DEMAND": "yes",
        "PARROT_MAX_LEASE_SECONDS": "90.5",
        "PARROT_THREADS": " ",
        "HOME": "/home/someone",
    }
    loaded = ServiceConfig.load(environment=environment)
    assert loaded.models == ("smollm2-135m", "/models/other.gguf")
    assert loaded.kv_memory == 512 << 20
    assert loaded.on_demand
    assert loaded.max_lease_seconds == 90.5
    assert loaded.threads is None


def test_a_misspelt_variable_is_refused_with_a_suggestion():
    with pytest.raises(DeclarationError, match=r"no setting PARROT_MODLES\. Did you mean PARROT_MODELS\?"):
        ServiceConfig.load(environment={"PARROT_MODLES": "fake"})


@pytest.mark.parametrize("variable", ["PARROT_FOO", "PARROT_QUIET", "PARROT_"])
def test_a_variable_that_is_near_none_is_told_with_all_that_there_are(variable: str):
    with pytest.raises(DeclarationError, match=rf"no setting {variable}\. There are: PARROT_API_KEY, PARROT_BACKEND, "):
        ServiceConfig.load(environment={variable: "1"})


def test_a_bad_value_is_told_without_what_python_says_of_it(tmp_path: Path):
    for file, variables in (("", {"PARROT_ENGINES": "two"}), ("engines = 'two'", {}), ("engines = 0", {})):
        with pytest.raises(DeclarationError) as refused:
            ServiceConfig.load(file=write(tmp_path / "mine.toml", file), environment=variables)
        assert refused.value.__suppress_context__


def test_variables_that_other_parts_read_are_no_typos():
    environment = {"PARROT_URL": "http://localhost:8000", "PARROT_API_KEY": "k", "PARROT_PEERS": "/tmp/p"}
    assert ServiceConfig.load(environment=environment) == ServiceConfig()


@pytest.mark.parametrize(
    ("variable", "text", "advice"),
    [
        ("PARROT_PORT", "http", "write a whole number"),
        ("PARROT_PORT", "70000", "between 0 and 65535"),
        ("PARROT_KV_MEMORY", "lots", "write a size such as 512MiB"),
        ("PARROT_ON_DEMAND", "perhaps", "write on or off"),
        ("PARROT_ENGINES", "0", "between 1 and 64"),
        ("PARROT_THREADS", "100000", "threads must be between 1 and 1024"),
        ("PARROT_MODELS", ",", "at least one model"),
        ("PARROT_MODELS", "fake,fake", "twice"),
        ("PARROT_MAX_LEASE_SECONDS", "nan", "above 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(variable: str, text: str, advice: str):
    with pytest.raises(DeclarationError, match=advice):
        ServiceConfig.load(environment={variable: text})


@pytest.mark.parametrize(
    ("text", "variables", "flags", "told"),
    [
        ("kv_memory = '1KiB'", {}, {}, "kv_memory = 1KiB in FILE: kv_memory must be at least 1MiB."),
        ("port = 70000", {}, {}, "port = 70000 in FILE: port must be between 0 and 65535."),
        ("without = ['x']", {}, {}, "without = x in FILE: There is no switch 'x'; there are: "),
        ("port = 70000", {"PARROT_PORT": "80000"}, {}, "PARROT_PORT='80000': port must be between 0 and 65535."),
        ("", {"PARROT_BACKEND": "kernel"}, {}, "PARROT_BACKEND='kernel': backend must be one of auto, kernels,"),
        ("", {"PARROT_WITHOUT": "prefx"}, {}, "PARROT_WITHOUT='prefx': There is no switch 'prefx'; did you mean"),
        ("", {"PARROT_PORT": "80000"}, {"port": 99999}, "--port 99999: port must be between 0 and 65535."),
        ("", {}, {"models": ("a b", "a b")}, "--model 'a b,a b': models must not name a model twice."),
    ],
)
def test_a_value_out_of_bounds_is_told_with_where_it_is_from(
    tmp_path: Path, text: str, variables: dict[str, str], flags: dict[str, Any], told: str
):
    file = write(tmp_path / "mine.toml", text)
    with pytest.raises(DeclarationError) as refused:
        ServiceConfig.load(file=file, environment=variables, **flags)
    assert refused.value.message.startswith(told.replace("FILE", str(file)))


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("2GB", 2 * 10**9), ("1.5 GiB", 3 << 29), ("64mib", 64 << 20), ("7K", 7000)]
)
def test_sizes_are_decimal_or_binary_as_written(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1iB", "GiB", "1 XB", "9" * 400, "9000000TiB"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match=r"write (a size|one) such as 512MiB"):
        parse_size(text)


IN_A_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1"}
SERVICE_LINKS = {
    "PARROT_SERVICE_HOST": "10.96.3.4",
    "PARROT_SERVICE_PORT": "8000",
    "PARROT_SERVICE_PORT_HTTP": "8000",
    "PARROT_PORT": "tcp://10.96.3.4:8000",
    "PARROT_PORT_8000_TCP": "tcp://10.96.3.4:8000",
    "PARROT_PORT_8000_TCP_PROTO": "tcp",
    "PARROT_PORT_8000_TCP_PORT": "8000",
    "PARROT_PORT_8000_TCP_ADDR": "10.96.3.4",
    "PARROT_WEB_SERVICE_HOST": "10.96.3.5",
    "PARROT_WEB_PORT": "udp://10.96.3.5:53",
}


def test_a_pod_beside_a_service_called_parrot_has_its_settings_alone():
    assert ServiceConfig.load(environment=IN_A_POD | SERVICE_LINKS) == ServiceConfig.load(environment={})
    assert ServiceConfig.load(environment=IN_A_POD | SERVICE_LINKS | {"PARROT_PORT": "9000"}).port == 9000


@pytest.mark.parametrize(
    ("variable", "value"), [("PARROT_SERVICE_PRT", "8000"), ("PARROT_PORT", "many"), ("PARROT_WEB_PORT", "8000")]
)
def test_in_a_pod_what_nothing_reads_is_refused_as_elsewhere(variable: str, value: str):
    with pytest.raises(DeclarationError, match=variable):
        ServiceConfig.load(environment=IN_A_POD | {variable: value})


@pytest.mark.parametrize("variable", SERVICE_LINKS)
def test_outside_of_pods_no_variable_is_kubernetes(variable: str):
    with pytest.raises(DeclarationError, match=variable):
        ServiceConfig.load(environment={variable: SERVICE_LINKS[variable]})


def test_a_file_may_begin_with_a_mark_of_its_encoding(tmp_path: Path):
    file = tmp_path / "mine.toml"
    file.write_text("port = 9000", encoding="utf-8-sig")
    assert ServiceConfig.load(file=file, environment={}).port == 9000


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("PARROT_DATA", "~nobody-here/data", "PARROT_DATA='~nobody-here/data': write the path of a folder"),
        ("PARROT_CONFIG", "~nobody-here/mine.toml", "settings in ~nobody-here/mine.toml cannot be read: No such file"),
    ],
)
def test_the_home_of_nobody_is_no_place(variable: str, value: str, why: str):
    with pytest.raises(DeclarationError, match=why):
        ServiceConfig.load(environment={variable: value})
