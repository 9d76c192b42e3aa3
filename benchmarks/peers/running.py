"""Peers' servers, each in a process group of its own, that rest (SIGSTOP) until somebody measures them."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import serve_llamacpp
import serve_vllm
from places import gguf_of, hugging_face_folder, peers_folder, python_of

_START_SECONDS = 600.0
_STOP_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Peer:
    """A server that is up, and rests."""

    name: str
    url: str
    group: int
    """Its process group."""

    @property
    def address(self) -> str:
        """As `parrot bench` wants it: who measures it wakes it, and lets it rest again."""
        return f"{self.url},{self.group}"


def installed() -> dict[str, tuple[str, ...]]:
    """The peers that are set up, and what to run for each: a script, and what follows the port. Those with drafts look
    what comes next up in the text itself, by options that did well here."""
    found: dict[str, tuple[str, ...]] = {}
    if python_of("vllm").with_name("vllm").exists() and hugging_face_folder().exists():
        found["vllm"] = (serve_vllm.__file__,)
        found["vllm-ngram"] = (serve_vllm.__file__, *serve_vllm.NGRAM)
    if serve_llamacpp.server().exists() and gguf_of("BF16").exists():
        found["llamacpp"] = (serve_llamacpp.__file__,)
        found["llamacpp-ngram"] = (serve_llamacpp.__file__, "BF16", *serve_llamacpp.NGRAM)
    return found


@contextlib.contextmanager
def running(name: str, script: str, *options: str) -> Iterator[Peer]:
    """A peer's server, for as long as it is needed. Exits, with what to do, if it does not come up."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = peers_folder() / f"{name}.log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            [sys.executable, script, str(port), *options], stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        ) as process,
    ):
        peer = Peer(name, f"http://127.0.0.1:{port}", process.pid)
        try:
            _wait(peer, process, log)
            os.killpg(peer.group, signal.SIGSTOP)
            yield peer
        finally:
            _end(peer, process)


def _wait(peer: Peer, process: subprocess.Popen[bytes], log: Path) -> None:
    print(f"Starting {peer.name} ...", file=sys.stderr)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{peer.url}/health", timeout=5).is_success:
                return
        time.sleep(0.5)
    sys.exit(f"{peer.name} did not come up; {log} says why.")


def _end(peer: Peer, process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(peer.group, signal.SIGTERM)
        os.killpg(peer.group, signal.SIGCONT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        os.killpg(peer.group, signal.SIGKILL)
