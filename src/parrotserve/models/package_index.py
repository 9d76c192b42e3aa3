"""Finding a file on a Python package index through the simple API: PEP 691 JSON or PEP 503 HTML."""

import os
from collections.abc import Generator
from dataclasses import dataclass
from html.parser import HTMLParser
from urllib.parse import unquote, urljoin, urlsplit

import httpx

from parrotserve.addresses import without_credentials
from parrotserve.errors import PullFailed

DEFAULT_INDEX = "https://pypi.org/simple"
_VARIABLE = "PARROT_INDEX_URL"
_NOT_FOUND = 404
_JSON = "application/vnd.pypi.simple.v1+json"
_ACCEPT = f"{_JSON}, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


@dataclass(frozen=True, slots=True)
class IndexFile:
    """A file that an index offers."""

    filename: str
    url: str


def chosen_index() -> str:
    """The URL of the index that models come from. Raises `PullFailed` if `PARROT_INDEX_URL` is not a URL."""
    index = os.environ.get(_VARIABLE, "").strip() or DEFAULT_INDEX
    try:
        good = urlsplit(index).scheme in ("http", "https") and bool(httpx.URL(index).host)
    except (ValueError, httpx.InvalidURL):
        good = False
    if not good:
        shown = without_credentials(index)
        raise PullFailed(f"{_VARIABLE}={shown!r} is not the URL of a package index; write one such as {DEFAULT_INDEX}.")
    return index


def advice_on_index() -> str:
    """A sentence, with a space after it, for errors of requests to the chosen index. It points out `PARROT_INDEX_URL`,
    which may have been set long ago, or by somebody else. Empty if that is not set."""
    index = os.environ.get(_VARIABLE, "").strip()
    return f"{_VARIABLE} is {without_credentials(index)}: see whether that is right. " if index else ""


def find_file(client: httpx.Client, index: str, project: str, filename: str) -> str:
    """The URL of a project's file. Raises `PullFailed` if the index does not offer it, and lets httpx errors through.
    The client has to have the index's `credentials`."""
    shown = without_credentials(index)
    page = client.get(f"{shown.rstrip('/')}/{project}/", headers={"Accept": _ACCEPT})
    if page.status_code == _NOT_FOUND:
        raise PullFailed(f"The package index {shown} has no {project}; set PARROT_INDEX_URL to one that has.")
    page.raise_for_status()
    for file in _files(page):
        if file.filename == filename:
            return file.url
    raise PullFailed(f"The package index {shown} does not offer {filename}; set PARROT_INDEX_URL to one that does.")


def credentials(index: str) -> httpx.Auth | None:
    """The user and password in an index's address, as authentication that only requests to this index carry. They must
    not stay in the address, because the HTTP client logs the addresses of requests. Raises httpx.InvalidURL."""
    url = httpx.URL(index)
    return _OfIndex(url) if url.userinfo else None


class _OfIndex(httpx.BasicAuth):
    """Authenticates only requests to the host of an index: its files may be on other hosts."""

    def __init__(self, index: httpx.URL) -> None:
        super().__init__(index.username, index.password)
        self._origin = (index.scheme, index.netloc)

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if (request.url.scheme, request.url.netloc) == self._origin:
            yield from super().auth_flow(request)
        else:
            yield request


def _files(page: httpx.Response) -> list[IndexFile]:
    kind = page.headers.get("content-type", "").partition(";")[0].strip()
    try:
        return _json_files(page) if kind.endswith("json") else _html_files(page)
    except (ValueError, KeyError, TypeError) as error:
        shown = without_credentials(str(page.url))
        raise PullFailed(f"{shown} is not a page of a package index; check PARROT_INDEX_URL.") from error


def _json_files(page: httpx.Response) -> list[IndexFile]:
    return [IndexFile(str(file["filename"]), urljoin(str(page.url), file["url"])) for file in page.json()["files"]]


def _html_files(page: httpx.Response) -> list[IndexFile]:
    parser = _Links()
    parser.feed(page.text)
    base = urljoin(str(page.url), parser.base)
    urls = [urljoin(base, target) for target in parser.targets]
    return [IndexFile(unquote(urlsplit(url).path.rpartition("/")[2]), url) for url in urls]


class _Links(HTMLParser):
    """Collects the targets of a page's anchors, and its base."""

    def __init__(self) -> None:
        super().__init__()
        self.base = ""
        self.targets: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        target = dict(attrs).get("href")
        if target and tag == "a":
            self.targets.append(target)
        elif target and tag == "base":
            self.base = target
