"""Settings of a service: one frozen object, filled from flags, then the environment, then a file, then defaults.

`ServiceConfig` is the one table of them: a new setting is a new field, and its flag, its variable, its key in the
file and its row in docs/configuration.md follow. Unknown settings are refused, in the environment and in the file
alike, so that a typo does not silently leave a default in place.
"""

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from parrotserve.bounds import CROWDING, Bounds
from parrotserve.errors import DeclarationError
from parrotserve.kubernetes import is_service_link
from parrotserve.names import near
from parrotserve.sandbox.limits import Limits
from parrotserve.settings import (
    ADDRESS,
    FLAG,
    FOLDER,
    NAMES,
    NUMBER,
    SECONDS,
    SIZE,
    SWITCH,
    TEXT,
    WHOLE,
    Group,
    Rule,
    above,
    at_least,
    between,
    home_expanded,
    one_of,
    setting,
    settings_of,
)
from parrotserve.switches import Switches

DEFAULT_MODEL = "smollm2-135m"
"""What a service with nothing configured serves."""

KEY_MODES = ("auto", "always", "never")
WEIGHTS = ("bf16", "int8", "int4")
BACKENDS = ("auto", "kernels", "reference")
LOG_LEVELS = ("debug", "info", "warning", "error")

READ_ELSEWHERE = {
    "PARROT_URL": "URL of the service that programs use",
    "PARROT_API_KEY": "the API key that programs send to it",
    "PARROT_CONFIG": "the file of settings, instead of the one in the user's configuration folder",
    "PARROT_CACHE": "where pulled models are kept, instead of the user's cache folder",
    "PARROT_INDEX_URL": "the Python package index that models come from, instead of PyPI",
    "PARROT_PEERS": "where the servers that benchmarks compare with are installed, instead of the user's cache folder",
}
"""`PARROT_` variables that are not settings of a service, and their meaning."""

_PREFIX = "PARROT_"
_FILE_VARIABLE = "PARROT_CONFIG"
_BY_ENGINE = "chosen by the engine"
_MIB = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceConfig:
    """What a service serves, and within which limits. Raises `DeclarationError` for values that make no sense."""

    models: tuple[str, ...] = setting(
        (DEFAULT_MODEL,),
        "Names or paths of models; requests that name none get the first.",
        kind=NAMES,
        group=Group.MODELS,
        flag="--model",
        rules=(
            Rule(lambda names: bool(names) and all(names), "must name at least one model"),
            Rule(lambda names: len(set(names)) == len(names), "must not name a model twice"),
        ),
    )
    engines: int = setting(1, "Engines for each model.", kind=WHOLE, group=Group.MODELS, rules=(between(1, 64),))
    on_demand: bool = setting(
        False,
        "Start engines for other known models (`parrot models`) when requests name them; the embedded service always "
        "does, also for paths.",
        kind=SWITCH,
        group=Group.MODELS,
    )
    backend: str = setting(
        "auto",
        "What computes the engines' steps; auto is kernels if they are there and support the model, else reference.",
        kind=TEXT,
        group=Group.MODELS,
        rules=(one_of(*BACKENDS),),
    )
    weights: str = setting(
        "bf16",
        "How the kernels keep a model's weights: int8 takes half the memory, and is faster and a little less exact; "
        "int4 keeps the 4-bit blocks of a Q4_0 or Q4_1 GGUF file, the least to read for one sequence.",
        kind=TEXT,
        group=Group.MODELS,
        rules=(one_of(*WEIGHTS),),
    )
    kv_memory: int | None = setting(
        None,
        "Memory for the KV cache of each engine, such as 512MiB.",
        kind=SIZE,
        group=Group.MODELS,
        rules=(at_least(_MIB, "1MiB"),),
        unset="an eighth of the machine's memory, at most 1GiB",
    )
    prefill_chunk: int | None = setting(
        None,
        "Most prompt tokens that an engine prefills in one step; up to a quarter more if that completes a prompt.",
        kind=WHOLE,
        group=Group.MODELS,
        rules=(between(1, 1_000_000),),
        unset=_BY_ENGINE,
    )
    max_running: int | None = setting(
        None,
        "Most sequences that an engine runs in one step; a smaller number serves each one sooner, and fewer in all.",
        kind=WHOLE,
        group=Group.MODELS,
        rules=(between(1, 1_000_000),),
        unset=_BY_ENGINE,
    )
    threads: int | None = setting(
        None,
        "Threads of each engine; more threads than cores wait for one another.",
        kind=WHOLE,
        group=Group.MODELS,
        rules=(between(1, 1024),),
        unset="an equal share of the cores",
    )
    without: tuple[str, ...] = setting(
        (),
        "Optimisations to turn off, such as prefix,groups; all turns off every one.",
        kind=NAMES,
        group=Group.SCHEDULING,
        unset="none",
    )
    tpot: float | None = setting(
        None,
        "Longest time between two tokens of a latency-sensitive request that other work on its engine may cause; does "
        "not limit prompts of the same tenant while nobody streams the request.",
        kind=SECONDS,
        group=Group.SCHEDULING,
        rules=(above(0),),
        unset="one and a half times what a token of a request alone takes",
    )
    crowding: float = setting(
        CROWDING,
        "How many times as long other tenants may make the steps of a tenant that waits for a request, compared with "
        "each of them asking for as much as it does, by weight; larger values get more work done in all.",
        kind=NUMBER,
        group=Group.SCHEDULING,
        rules=(at_least(1),),
    )
    host: str = setting(
        "127.0.0.1",
        "Address to listen on, :: for all of IPv4 and IPv6; one that other machines can reach needs keys.",
        kind=ADDRESS,
        group=Group.SERVER,
    )
    port: int = setting(
        8000, "Port to listen on; 0 picks a free one.", kind=WHOLE, group=Group.SERVER, rules=(between(0, 65_535),)
    )
    drain_seconds: float = setting(
        30.0,
        "How long open exchanges may go on after `parrot serve` is told to end; it accepts no new work meanwhile, and "
        "a second signal ends it at once.",
        kind=SECONDS,
        group=Group.SERVER,
        rules=(at_least(0),),
    )
    journal: bool = setting(
        True,
        "Keep sessions in the data folder, so that they go on when the service was killed and is started again; only "
        "with a port that is not 0, as clients could not find it again.",
        kind=SWITCH,
        group=Group.SERVER,
    )
    log_level: str = setting(
        "warning",
        "What `parrot serve` logs to standard error; never prompts.",
        kind=TEXT,
        group=Group.SERVER,
        rules=(one_of(*LOG_LEVELS),),
    )
    data: Path | None = setting(
        None,
        "Folder for what must last: sessions, and tenants with their keys, limits and usage.",
        kind=FOLDER,
        group=Group.TENANTS,
        unset="parrot in the user's data folder",
    )
    keys: str = setting(
        "auto",
        "Whether `parrot serve` asks for API keys (auto: once there is one; never: allowed on loopback only).",
        kind=TEXT,
        group=Group.TENANTS,
        rules=(one_of(*KEY_MODES),),
    )
    max_lease_seconds: float = setting(
        86_400.0,
        "The longest lease that a session gets, whatever it asks for.",
        kind=SECONDS,
        group=Group.LIMITS,
        rules=(above(0),),
    )
    max_session_requests: int = setting(
        10_000,
        "Most requests and native calls of a session. When a session ends or is cancelled, every stream pauses for "
        "some 20 ms for each thousand of them.",
        kind=WHOLE,
        group=Group.LIMITS,
        rules=(at_least(1),),
    )
    max_batch_requests: int = setting(
        2_000,
        "Most requests and native calls of one submit; Parrot programs send larger ones in parts.",
        kind=WHOLE,
        group=Group.LIMITS,
        rules=(at_least(1),),
    )
    max_body_bytes: int = setting(
        16 * _MIB, "Larger HTTP bodies are refused.", kind=SIZE, group=Group.LIMITS, rules=(at_least(1024, "1KiB"),)
    )
    max_exchanges: int | None = setting(
        None,
        "Most HTTP exchanges that each tenant may have open: streams, and answers that are waited for.",
        kind=WHOLE,
        group=Group.LIMITS,
        rules=(at_least(1),),
        unset="as many as it leaves to others, of those that file descriptors allow; without keys, all",
    )
    sandbox_seconds: float = setting(
        1.0,
        "Longest time that a native function may take in the service's sandbox.",
        kind=SECONDS,
        group=Group.LIMITS,
        rules=(above(0),),
    )
    sandbox_memory: int = setting(
        256 * _MIB,
        "Memory of a process that runs native functions, including its interpreter.",
        kind=SIZE,
        group=Group.LIMITS,
        rules=(at_least(64 * _MIB, "64MiB"),),
    )
    sandbox_output: int = setting(
        _MIB, "Largest result of a native function in the sandbox.", kind=SIZE, group=Group.LIMITS, rules=(at_least(1),)
    )
    sandbox_processes: int = setting(
        2,
        "Native functions that the sandbox runs side by side, each in a process that is started when needed.",
        kind=WHOLE,
        group=Group.LIMITS,
        rules=(between(1, 64),),
    )

    def __post_init__(self) -> None:
        for one in SETTINGS.values():
            must = one.broken_rule(getattr(self, one.name))
            if must is not None:
                raise DeclarationError(f"{one.name} {must}.", setting=one.name)
        Switches.without(self.without)

    @property
    def data_folder(self) -> Path:
        """Where what lasts is kept."""
        return self.data or platformdirs.user_data_path("parrot")

    @property
    def switches(self) -> Switches:
        """Which optimisations are on."""
        return Switches.without(self.without)

    @property
    def bounds(self) -> Bounds:
        """How much other work may slow requests down."""
        return Bounds(tpot=self.tpot, crowding=self.crowding)

    @property
    def sandbox(self) -> Limits:
        """Limits of native functions that the service runs itself."""
        return Limits(
            seconds=self.sandbox_seconds,
            memory=self.sandbox_memory,
            output=self.sandbox_output,
            processes=self.sandbox_processes,
        )

    @classmethod
    def load(
        cls, *, file: Path | None = None, environment: Mapping[str, str] | None = None, **flags: Any
    ) -> "ServiceConfig":
        """Settings from flags (None: not given), else the environment, else the file, else the defaults.

        `file` must exist; without it, the file is that of PARROT_CONFIG, else `default_file()` if it exists.
        """
        return effective(file=file, environment=environment, **flags)[0]


SETTINGS = settings_of(ServiceConfig)


def effective(
    *, file: Path | None = None, environment: Mapping[str, str] | None = None, **flags: Any
) -> tuple[ServiceConfig, dict[str, str]]:
    """The settings as `ServiceConfig.load` finds them, and where each was found."""
    environment = os.environ if environment is None else environment
    path = _chosen_file(file, environment)
    found: dict[str, Any] = {}
    origins = dict.fromkeys(SETTINGS, "default")
    from_environment = read_environment(environment)
    given = {name: value for name, value in flags.items() if value is not None}
    for values, origin in (
        (read_file(path) if path else {}, str(path)),
        (from_environment, None),
        (given, FLAG),
    ):
        found |= values
        origins |= {name: origin or SETTINGS[name].variable for name in values}
    try:
        return ServiceConfig(**found), origins
    except DeclarationError as error:
        refused = SETTINGS[error.details["setting"]]
        given = refused.as_given(found[refused.name], origins[refused.name], environment)
        raise DeclarationError(f"{given}: {error.message}", setting=refused.name) from None


def default_file() -> Path:
    """The file of settings if none is named: `parrot/config.toml` in the user's configuration folder."""
    return platformdirs.user_config_path("parrot") / "config.toml"


def read_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    """The settings that `PARROT_` variables give. Raises `DeclarationError` for unknown ones and bad values."""
    settings: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(_PREFIX) or variable in READ_ELSEWHERE or is_service_link(variable, environment):
            continue
        one = SETTINGS.get(variable.removeprefix(_PREFIX).lower())
        if one is None or variable != one.variable:
            known = [setting.variable for setting in SETTINGS.values()] + list(READ_ELSEWHERE)
            hint = near(variable.upper(), known, alike=_PREFIX)
            raise DeclarationError(f"There is no setting {variable}. {hint}", setting=variable)
        if text.strip():
            try:
                settings[one.name] = one.kind.parse(text)
            except ValueError as error:
                raise DeclarationError(f"{variable}={text!r}: {error}.", setting=one.name) from None
    return settings


def read_file(path: Path) -> dict[str, Any]:
    """The settings of a TOML file. Raises `DeclarationError` for unknown ones, bad values and unreadable files."""
    try:
        text = path.read_text(encoding="utf-8-sig")  # editors on Windows begin files with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise DeclarationError(f"The settings in {path} cannot be read: {why}.", setting="config") from error
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise DeclarationError(f"{path} is not valid TOML: {error}.", setting="config") from error
    return {name: _from_file(path, name, value) for name, value in values.items()}


def _from_file(path: Path, name: str, value: object) -> Any:
    one = SETTINGS.get(name)
    if one is None:
        hint = near(name.lower().replace("-", "_"), SETTINGS)
        raise DeclarationError(f"{path} has an unknown setting {name!r}. {hint}", setting=name)
    try:
        return one.kind.from_toml(value)
    except ValueError as error:
        raise DeclarationError(f"{name} = {value!r} in {path}: {error}.", setting=name) from None


def _chosen_file(file: Path | None, environment: Mapping[str, str]) -> Path | None:
    if file is not None:
        return file
    named = environment.get(_FILE_VARIABLE, "").strip()
    if named:
        return home_expanded(named)
    usual = default_file()
    try:
        return usual if usual.exists() else None
    except OSError as error:  # another user's home, say
        advice = "Set PARROT_CONFIG to a file that can be read, or to /dev/null for none."
        why = f"Settings in {usual} cannot be looked for: {error.strerror}. {advice}"
        raise DeclarationError(why, setting="config") from error
