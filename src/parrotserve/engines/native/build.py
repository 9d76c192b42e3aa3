"""A native engine from a model's files: weights, a cache within its memory budget, and the loop over both."""

import sys
from collections.abc import Callable
from pathlib import Path

from parrotserve.aside import Doing, at_once
from parrotserve.engines.base import Capability, EngineDescription
from parrotserve.engines.frames import WARNING
from parrotserve.engines.native.backend import Backend
from parrotserve.engines.native.cache import KvCache, NaiveCache, PageCache
from parrotserve.engines.native.kernels import BLOCK_TOKENS, KernelsBackend, unfit, variants
from parrotserve.engines.native.loop import NativeCore
from parrotserve.engines.native.memory import default_kv_bytes, weights_fault
from parrotserve.engines.native.reference import ReferenceBackend
from parrotserve.engines.native.settings import (
    PAGE_TOKENS,
    BackendName,
    CoreSettings,
    Launch,
    NativeSettings,
    WeightFormat,
    usable_cores,
)
from parrotserve.errors import EngineRefused
from parrotserve.models.config import ModelConfig, load_config
from parrotserve.models.files import ModelFiles
from parrotserve.models.tokenizer import load_tokenizer
from parrotserve.models.weights import ModelWeights, load_weights

_MIB = 1 << 20


def build_engine(
    launch: Launch, *, make_cache: Callable[[Backend, int], PageCache] | None = None, doing: Doing = at_once
) -> tuple[EngineDescription, NativeCore]:
    """The engine that `launch` asks for. Raises `ModelError`, or `EngineRefused` for settings that do not fit the model
    or what is installed, and for a memory budget that is too small for a page or larger than this machine allows.

    `make_cache`, if given, makes the cache, from the backend and its number of pages; otherwise the settings say which.
    `doing` runs work that would otherwise delay steps.
    """
    settings = launch.settings
    files = ModelFiles(launch.model, Path(launch.path), launch.format)
    config = load_config(files)
    tokenizer = load_tokenizer(files, rows=config.vocabulary)
    backend_name = _backend_name(settings.backend, config, launch.model)
    _check_weights(settings.weights, backend_name, config, launch.model)
    bytes_a_page = page_bytes(backend_name, config)
    pages = _pages(settings, bytes_a_page)
    form = settings.weights if backend_name is BackendName.KERNELS else None
    fault = weights_fault(launch.model, config, form, pages * bytes_a_page, settings.engines)
    if fault is not None:  # before the weights are read: the system would kill this process meanwhile
        raise EngineRefused(fault)
    try:
        backend = _backend(backend_name, _weights(files, config, settings.weights), config, pages, settings)
    except MemoryError as error:
        raise EngineRefused(
            f"There is too little memory for {launch.model} and a KV cache of {pages * bytes_a_page / _MIB:,.0f} MiB: "
            "lower kv_memory, or end what else takes memory here."
        ) from error
    if make_cache is not None:
        cache = make_cache(backend, pages)
    else:
        cache = (KvCache if settings.share else NaiveCache)(pages, PAGE_TOKENS)
    align_tokens = BLOCK_TOKENS if backend_name is BackendName.KERNELS else 1
    core_settings = _core_settings(settings, config, cache_tokens=pages * PAGE_TOKENS, align_tokens=align_tokens)
    description = EngineDescription(
        model=launch.model,
        context_length=core_settings.context_length,
        cut_by_cache=core_settings.cut_by_cache,
        cache_tokens=pages * PAGE_TOKENS,
        page_tokens=PAGE_TOKENS,
        credits=settings.credits,
        batch=settings.max_running,
        capabilities=frozenset(Capability),
    )
    if settings.backend is BackendName.AUTO:
        _warn_of_reference(launch.model, backend_name, config)
    _announce(description, backend_name, settings.weights, bytes_a_page)
    return description, NativeCore(backend, cache, tokenizer, core_settings, doing=doing)


def page_bytes(backend: BackendName, config: ModelConfig) -> int:
    """Bytes that one page of KV takes. Raises `EngineRefused` where the backend cannot run the model."""
    if _backend_name(backend, config, "this model") is BackendName.KERNELS:
        return KernelsBackend.page_bytes(config)
    return ReferenceBackend.page_bytes(config, PAGE_TOKENS)


def _backend_name(asked: BackendName, config: ModelConfig, model: str) -> BackendName:
    if asked is BackendName.AUTO:
        return BackendName.KERNELS if variants() and unfit(config) is None else BackendName.REFERENCE
    if asked is BackendName.KERNELS:
        if not variants():
            raise EngineRefused(
                "The kernels backend needs the compiled extension, which is not installed: install a C++17 compiler "
                "and install Parrot again, or use the reference backend."
            )
        reason = unfit(config)
        if reason is not None:
            raise EngineRefused(
                f"The kernels backend cannot run {model}: {reason}. Set backend to auto or reference, which is slower."
            )
    return asked


def _check_weights(form: WeightFormat, backend: BackendName, config: ModelConfig, model: str) -> None:
    if form is WeightFormat.BF16 or backend is BackendName.KERNELS:
        return
    reason = unfit(config)
    if variants() and reason is not None:
        raise EngineRefused(
            f"Weights in {form} need the kernels backend, which cannot run {model}: {reason}. Leave out the weights "
            "setting."
        )
    raise EngineRefused(
        f"Weights in {form} need the kernels backend, and this engine would run on the reference backend: install "
        "Parrot with a C++17 compiler installed (`parrot doctor` tells more), or leave out the weights setting."
    )


def _warn_of_reference(model: str, backend: BackendName, config: ModelConfig) -> None:
    """Warns if the model's shape is what rules the kernels out; that they are not installed is told elsewhere."""
    reason = unfit(config)
    if backend is BackendName.REFERENCE and variants() and reason is not None:
        why = f"the kernels do not take its shape ({reason})"
        print(f"{WARNING}{model} runs on the reference backend, which is slow: {why}", file=sys.stderr, flush=True)


def _weights(files: ModelFiles, config: ModelConfig, form: WeightFormat) -> ModelWeights:
    weights = load_weights(files, config, four_bit=form is not WeightFormat.INT8, keep=False)
    if form is WeightFormat.INT4 and not any(layer.four_bit for layer in weights.layers):
        raise EngineRefused(
            f"Weights in int4 are a file's own 4-bit blocks, and {files.path} has none: use a GGUF file in Q4_0 or "
            "Q4_1, or set weights to int8, which works with any model."
        )
    return weights


def _backend(
    name: BackendName, weights: ModelWeights, config: ModelConfig, pages: int, settings: NativeSettings
) -> Backend:
    if name is BackendName.KERNELS:
        threads = settings.threads or usable_cores()
        return KernelsBackend(weights, config, pages=pages, threads=threads, form=settings.weights)
    return ReferenceBackend(weights, config, pages=pages, page_tokens=PAGE_TOKENS)


def _pages(settings: NativeSettings, bytes_a_page: int) -> int:
    budget = settings.kv_bytes if settings.kv_bytes is not None else default_kv_bytes()
    if budget < bytes_a_page:
        raise EngineRefused(
            f"A KV cache of {budget:,} bytes holds nothing: one page of this model's KV takes {bytes_a_page:,} bytes. "
            "Raise kv_memory."
        )
    return budget // bytes_a_page


def _core_settings(
    settings: NativeSettings, config: ModelConfig, *, cache_tokens: int, align_tokens: int
) -> CoreSettings:
    return CoreSettings(
        vocabulary=config.vocabulary,
        context_length=min(config.context_length, cache_tokens),
        cut_by_cache=cache_tokens < config.context_length,
        prefill_chunk=settings.prefill_chunk,
        max_running=settings.max_running,
        credits=settings.credits,
        group=settings.group,
        share=settings.share,
        adapt=settings.adapt,
        tpot=settings.tpot,
        speculate=settings.speculate,
        check=settings.check,
        align_tokens=align_tokens,
    )


def _announce(description: EngineDescription, backend: BackendName, weights: WeightFormat, bytes_a_page: int) -> None:
    form = weights if backend is BackendName.KERNELS else "float32"
    mib = description.cache_tokens // description.page_tokens * bytes_a_page / _MIB
    cache = f"KV cache of {description.cache_tokens:,} tokens in {mib:,.1f} MiB"
    print(
        f"{description.model} on the {backend} backend, weights in {form}: context of "
        f"{description.context_length:,} tokens, {cache}",
        file=sys.stderr,
        flush=True,
    )
