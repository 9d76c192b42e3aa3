"""The catalog: finds the models that a service serves, with their prompt formats, and makes engines for them."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import cast

from parrotserve.config import ServiceConfig
from parrotserve.engines.base import Engine
from parrotserve.engines.fake import FakeEngine
from parrotserve.engines.fake_tokenizer import FakeTokenizer
from parrotserve.engines.native.engine import NativeEngine
from parrotserve.engines.native.memory import kv_fault
from parrotserve.engines.native.settings import (
    DEFAULT_MAX_RUNNING,
    DEFAULT_PREFILL_CHUNK,
    BackendName,
    NativeSettings,
    WeightFormat,
    usable_cores,
)
from parrotserve.errors import DeclarationError
from parrotserve.ids import EngineId
from parrotserve.models.chat import ChatTemplate, load_chat_template
from parrotserve.models.config import load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.pull import Progress
from parrotserve.models.registry import FAKE_MODEL, KNOWN_MODELS, is_known, resolve
from parrotserve.models.tokenizer import Tokenizer, load_tokenizer
from parrotserve.runtime.render import Renderer

_FAKE_CONTEXT = 8192
_BOUNDLESS = 1 << 40
_ANY_TEMPLATE = "{% for one in messages %}{{ one.content }}{% endfor %}{% if tools %}<tool_call>{% endif %}"
"""Takes any conversation, with tools and without."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that was found: how its prompts are rendered, and how engines for it are made."""

    name: str
    context_length: int
    vocabulary: int
    """Upper bound (exclusive) of the token ids that a prompt may have."""
    renderer: Renderer
    make_engine: Callable[[EngineId], Engine]
    path: Path | None = None
    """Resolved path of its weights, whatever path was used to name it; None for a model without weights."""
    created: int = field(default_factory=lambda: int(time.time()))
    """When it was found, in seconds since 1970."""


def slug_of(name: str) -> str:
    """The last part of a model's name or path, in characters that ids may have."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", Path(name).name).strip("-.")[:40] or "model"


Models = Mapping[str | None, ServedModel]
"""Models by the names that requests use for them; None: the default model."""

Loader = Callable[[str, ServiceConfig, Progress | None], ServedModel]
"""Finds a model by name or path. It may take long, so it runs in a thread. Raises `ModelError`."""


NAMES_ON_DEMAND = tuple(KNOWN_MODELS)
"""The models that requests from the network may name, if models are served on demand."""


def may_serve(name: str, config: ServiceConfig, *, by_path: bool) -> bool:
    """Whether a model may be served: a configured one, or, on demand, one that a request names.

    From the network (no `by_path`), only known names are allowed. With paths, anybody with a key could find out which
    files exist, and have engines started for every way to write a path.
    """
    return name in config.models or (config.on_demand and (by_path or name == FAKE_MODEL or is_known(name)))


def load_model(name: str, config: ServiceConfig, progress: Progress | None = None) -> ServedModel:
    """Load a model by a known name (pulled on first use) or by path. Raises `ModelError`, and `DeclarationError` if
    the KV caches of the service's engines would not fit into this machine's memory."""
    if name == FAKE_MODEL:
        return fake_model()
    # Checked here, before anything is fetched: engines would find out only by failing to allocate, at each start.
    engines = native_engines(config, name)
    fault = kv_fault(config.kv_memory, engines)
    if fault is not None:
        advice = "lower it" if engines == 1 else "lower it, or have fewer engines"
        raise DeclarationError(f"{fault}: {advice}.", setting="kv_memory")
    files = resolve(name, progress=progress)
    shape = load_config(files)
    tokenizer = load_tokenizer(files, rows=shape.vocabulary)
    return ServedModel(
        name=files.name,
        context_length=shape.context_length,
        vocabulary=tokenizer.vocabulary_size,
        renderer=Renderer(tokenizer, load_chat_template(files)),
        make_engine=partial(_native_engine, files=files, settings=_native_settings(config)),
        path=files.path.resolve(),
    )


def fake_model(
    make_engine: Callable[[EngineId], Engine] = FakeEngine,
    *,
    name: str = FAKE_MODEL,
    template: ChatTemplate | None = None,
) -> ServedModel:
    """The fake model, which has no weights, served by engines that `make_engine` makes."""
    tokenizer = FakeTokenizer()
    return ServedModel(
        name=name,
        context_length=_FAKE_CONTEXT,
        vocabulary=tokenizer.vocabulary_size,
        renderer=Renderer(cast("Tokenizer", tokenizer), template),
        make_engine=make_engine,
    )


def unfetched_model(name: str) -> ServedModel:
    """A stand-in for a model of which nothing is known yet: whatever it refuses, the model would refuse, too."""
    fake = fake_model(name=name, template=ChatTemplate(_ANY_TEMPLATE))
    return replace(fake, context_length=_BOUNDLESS, vocabulary=_BOUNDLESS)


def native_engines(config: ServiceConfig, *more: str) -> int:
    """The number of engines that compute on this machine for the configured models, and for these."""
    return config.engines * len({*config.models, *more} - {FAKE_MODEL})


def engine_threads(config: ServiceConfig) -> int:
    """Threads of each engine: as configured, or an equal share of the cores for each of the service's engines."""
    return config.threads or max(1, usable_cores() // max(1, native_engines(config)))


def _native_engine(engine: EngineId, *, files: ModelFiles, settings: NativeSettings) -> Engine:
    return NativeEngine(engine, files.name, files, settings)


def _native_settings(config: ServiceConfig) -> NativeSettings:
    return NativeSettings(
        backend=BackendName(config.backend),
        weights=WeightFormat(config.weights),
        kv_bytes=config.kv_memory,
        prefill_chunk=config.prefill_chunk or DEFAULT_PREFILL_CHUNK,
        max_running=config.max_running or DEFAULT_MAX_RUNNING,
        threads=engine_threads(config),
        engines=config.engines,
        share=config.switches.sharing,
        group=config.switches.attention,
        adapt=config.switches.pace,
        tpot=config.tpot,
        speculate=config.switches.speculation,
    )
