import pytest

from parrotserve.config import ServiceConfig, parse_size
from parrotserve.errors import DeclarationError


def test_defaults_serve_the_default_model_on_loopback():
    config = ServiceConfig.load(environment={})
    assert (config.models, config.engines, config.host, config.port) == (("default",), 1, "127.0.0.1", 8000)


def test_a_flag_wins_over_the_environment_which_wins_over_the_default():
    environment = {"PARROT_PORT": "9000", "PARROT_ENGINES": "2"}
    config = ServiceConfig.load(environment=environment, port=9100, engines=None)
    assert (config.port, config.engines) == (9100, 2)


def test_the_environment_is_read_by_type():
    environment = {
        "PARROT_MODELS": "smollm2-135m, /models/other.gguf",
        "PARROT_KV_MEMORY": "512MiB",
        "PARROT_ON_DEMAND": "yes",
        "PARROT_MAX_LEASE_SECONDS": "90.5",
        "PARROT_THREADS": " ",
        "HOME": "/home/someone",
    }
    config = ServiceConfig.load(environment=environment)
    assert config.models == ("smollm2-135m", "/models/other.gguf")
    assert config.kv_memory == 512 << 20
    assert config.on_demand
    assert config.max_lease_seconds == 90.5
    assert config.threads is None


def test_a_misspelt_variable_is_refused_with_a_suggestion():
    with pytest.raises(DeclarationError, match=r"no setting PARROT_MODLES\. Did you mean PARROT_MODELS\?"):
        ServiceConfig.load(environment={"PARROT_MODLES": "fake"})


def test_variables_that_other_parts_read_are_no_typos():
    environment = {"PARROT_URL": "http://localhost:8000", "PARROT_API_KEY": "k", "PARROT_CACHE": "/tmp/c"}
    assert ServiceConfig.load(environment=environment) == ServiceConfig()


@pytest.mark.parametrize(
    ("variable", "text", "advice"),
    [
        ("PARROT_PORT", "http", "write a whole number"),
        ("PARROT_PORT", "70000", "between 0 and 65535"),
        ("PARROT_KV_MEMORY", "lots", "write a size such as 512MiB"),
        ("PARROT_ON_DEMAND", "perhaps", "write 1 or 0"),
        ("PARROT_ENGINES", "0", "between 1 and 64"),
        ("PARROT_MODELS", ",", "at least one model"),
        ("PARROT_MODELS", "fake,fake", "twice"),
        ("PARROT_MAX_LEASE_SECONDS", "nan", "above 0"),
    ],
)
def test_values_that_make_no_sense_are_refused(variable: str, text: str, advice: str):
    with pytest.raises(DeclarationError, match=advice):
        ServiceConfig.load(environment={variable: text})


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("2GB", 2 * 10**9), ("1.5 GiB", 3 << 29), ("64mib", 64 << 20), ("7K", 7000)]
)
def test_sizes_are_decimal_or_binary_as_written(text: str, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "-1", "1iB", "GiB", "1 XB"])
def test_what_is_no_size_is_refused(text: str):
    with pytest.raises(ValueError, match="write a size"):
        parse_size(text)
