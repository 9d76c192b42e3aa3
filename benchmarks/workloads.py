"""`parrot bench` beside the peers that are set up, started before and stopped after.

    python benchmarks/workloads.py all --quick                       # every workload, in a few minutes
    python benchmarks/workloads.py copilot --into docs/benchmarks    # one, with its JSON and picture

All arguments go to `parrot bench`; without `--sides`, all run but the ablations and peers with drafts. To measure in
several sittings, keep the peers up, at rest, in another terminal, and name their file:

    python benchmarks/workloads.py serve peers.json                  # or some of them: serve peers.json vllm llamacpp
    python benchmarks/workloads.py all --peers peers.json --into results --resume --seconds 200
"""

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from running import installed, running


@contextlib.contextmanager
def peers(names: Collection[str] | None = None) -> Iterator[dict[str, str]]:
    """A context in which these peers run, with their addresses. Without names: all installed ones that do not speculate
    with n-grams, since all together would need 20 GB of memory. Exits if one is not set up."""
    there = installed()
    missing = [name for name in names or () if name not in there]
    if missing:
        sys.exit(
            f"Not set up: {', '.join(missing)}; there are: {', '.join(there) or 'none'} (benchmarks/peers/install.py)."
        )
    plain = [name for name in there if not name.endswith("-ngram")]
    with contextlib.ExitStack() as stack:
        yield {
            name: stack.enter_context(running(name, *there[name])).address
            for name in (plain if names is None else names)
        }


def serve(target: Path, names: Collection[str] = ()) -> None:
    """Keep the peers up until a signal ends it, with their addresses in the file `target`."""
    with peers(names or None) as there:
        target.write_text(json.dumps(there), encoding="utf-8")
        print(f"{', '.join(there)}: up, at rest, until Ctrl-C.", file=sys.stderr)
        try:
            signal.pause()
        finally:
            target.unlink()


def bench(there: dict[str, str], arguments: list[str]) -> int:
    """Run `parrot bench` with these peers. Returns its exit code."""
    for name, address in there.items():
        arguments += [f"--{name}", address]
    if "--sides" not in arguments:
        arguments += ["--sides", ",".join(["on", "off", "capped", *there])]
    command = [sys.executable, "-m", "parrotserve.cli.main", "bench", *arguments]
    return subprocess.run(command, check=False).returncode


def _named(arguments: list[str]) -> list[str] | None:
    """The peers among the sides that the arguments name; None if they name no sides."""
    if "--sides" not in arguments[:-1]:
        return None
    sides = arguments[arguments.index("--sides") + 1].split(",")
    return [name for name in installed() if name in map(str.strip, sides)]


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _there(file: str) -> dict[str, str]:
    """The addresses in a file that `serve` wrote. Exits if there is none."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        sys.exit(f"--peers {file}: {error}; `workloads.py serve {file}` writes it, for as long as the peers are up.")


def main() -> None:
    """Start the peers, run the benchmark, stop the peers."""
    signal.signal(signal.SIGTERM, _interrupted)
    arguments = [
        part for told in sys.argv[1:] for part in (told.split("=", 1) if told.startswith("--sides=") else [told])
    ]
    if not arguments or {"-h", "--help"} & set(arguments) or arguments in (["serve"], ["--peers"]):
        print(__doc__)
        sys.exit(bench({}, ["--help"]))
    with contextlib.suppress(KeyboardInterrupt):
        if arguments[0] == "serve":
            return serve(Path(arguments[1]), arguments[2:])
        if "--peers" in arguments[:-1]:
            place = arguments.index("--peers")
            sys.exit(bench(_there(arguments[place + 1]), arguments[:place] + arguments[place + 2 :]))
        with peers(_named(arguments)) as there:
            sys.exit(bench(there, arguments))
    sys.exit(130)


if __name__ == "__main__":
    main()
