"""A native engine from a model's files: weights, a cache within its memory budget, and the loop over both."""

import contextlib
import os
import sys
from pathlib import Path

from parrotserve.engines.base import Capability, EngineDescription
from parrotserve.engines.native.cache import KvCache, NaiveCache
from parrotserve.engines.native.loop import NativeCore
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import PAGE_TOKENS, CoreSettings, Launch, NativeSettings
from parrotserve.errors import EngineFailed
from parrotserve.models.config import ModelConfig, load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.models.weights import load_weights

_MIB = 1 << 20
_MOST_BY_DEFAULT = 1024 * _MIB
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def build_engine(launch: Launch) -> tuple[EngineDescription, NativeCore]:
    """The engine that was asked for. Raises `ModelError`, or `EngineFailed` for a budget that holds nothing."""
    settings = launch.settings
    files = ModelFiles(launch.model, Path(launch.path), launch.format)
    config = load_config(files)
    tokenizer = load_tokenizer(files)
    pages = _pages(settings, config)
    backend = ReferenceBackend(load_weights(files, config), config, pages=pages, page_tokens=PAGE_TOKENS)
    cache = (KvCache if settings.share else NaiveCache)(pages, PAGE_TOKENS)
    core_settings = _core_settings(settings, config, cache_tokens=pages * PAGE_TOKENS)
    description = EngineDescription(
        model=launch.model,
        context_length=core_settings.context_length,
        cache_tokens=pages * PAGE_TOKENS,
        page_tokens=PAGE_TOKENS,
        credits=settings.credits,
        capabilities=frozenset(Capability),
    )
    _announce(description, config)
    return description, NativeCore(backend, cache, tokenizer, core_settings)


def default_kv_bytes() -> int:
    """An eighth of the memory that this process may use, at most 1 GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # no such file outside of Linux, and "max" where there is no limit
        memory = min(memory, int(_CGROUP_LIMIT.read_text()))
    return min(_MOST_BY_DEFAULT, memory // 8)


def _pages(settings: NativeSettings, config: ModelConfig) -> int:
    budget = settings.kv_bytes if settings.kv_bytes is not None else default_kv_bytes()
    page_bytes = ReferenceBackend.page_bytes(config, PAGE_TOKENS)
    if budget < page_bytes:
        raise EngineFailed(
            f"A KV cache of {budget:,} bytes holds nothing: one page of this model's KV takes {page_bytes:,} bytes."
        )
    return budget // page_bytes


def _core_settings(settings: NativeSettings, config: ModelConfig, *, cache_tokens: int) -> CoreSettings:
    model_limits = config.context_length <= cache_tokens
    return CoreSettings(
        context_length=min(config.context_length, cache_tokens),
        limited_by="that is the model's context" if model_limits else "that is what the KV cache holds",
        prefill_chunk=settings.prefill_chunk,
        max_running=settings.max_running,
        credits=settings.credits,
        group=settings.group,
        share=settings.share,
    )


def _announce(description: EngineDescription, config: ModelConfig) -> None:
    pages = description.cache_tokens // description.page_tokens
    mib = pages * ReferenceBackend.page_bytes(config, PAGE_TOKENS) / _MIB
    print(
        f"{description.model}: context of {description.context_length:,} tokens, "
        f"KV cache of {description.cache_tokens:,} tokens in {mib:,.1f} MiB",
        file=sys.stderr,
        flush=True,
    )
