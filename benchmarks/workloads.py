"""`parrot bench` beside the peers that are set up, started before and stopped after.

    python benchmarks/workloads.py all --quick                       # every workload, in a few minutes
    python benchmarks/workloads.py copilot --into docs/benchmarks    # one, with its JSON and picture

All arguments go to `parrot bench`; without `--sides`, all but the ablations run.
"""

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).parent / "peers"))
import serve_llamacpp
import serve_vllm
from places import gguf_of, hugging_face_folder, python_of

_START_SECONDS = 600.0


def peers() -> dict[str, str]:
    """The scripts that serve the peers that are set up."""
    found: dict[str, str] = {}
    if python_of("vllm").with_name("vllm").exists() and hugging_face_folder().exists():
        found["vllm"] = serve_vllm.__file__
    if serve_llamacpp.server().exists() and gguf_of("BF16").exists():
        found["llamacpp"] = serve_llamacpp.__file__
    return found


@contextlib.contextmanager
def served(name: str, script: str) -> Iterator[str]:
    """A peer's server; its URL once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        [sys.executable, script, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            _wait(name, url, process)
            yield url
        finally:
            process.terminate()


def _wait(name: str, url: str, process: subprocess.Popen[bytes]) -> None:
    print(f"Starting {name} ...", file=sys.stderr)
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{url}/health", timeout=5).is_success:
                return
        time.sleep(0.5)
    script = Path(__file__).parent / "peers" / f"serve_{name}.py"
    sys.exit(f"{name} did not come up; run {script} to see why.")


def main() -> None:
    """Start, measure, stop."""
    arguments = sys.argv[1:]
    with contextlib.ExitStack() as running:
        there = {name: running.enter_context(served(name, script)) for name, script in peers().items()}
        for name, url in there.items():
            arguments += [f"--{name}", url]
        if "--sides" not in arguments:
            arguments += ["--sides", ",".join(["on", "off", "capped", *there])]
        command = [sys.executable, "-m", "parrotserve.cli.main", "bench", *arguments]
        sys.exit(subprocess.run(command, check=False).returncode)


if __name__ == "__main__":
    main()
