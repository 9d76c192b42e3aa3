"""The command `parrot` in processes of its own."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PARROT = (sys.executable, "-m", "parrotserve.cli.main")


def environment(**settings: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "500", "PYTHONUNBUFFERED": "1", **settings}


def parrot(*arguments: str | Path, timeout: float = 100, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; settings go into its environment."""
    return subprocess.run(
        [*PARROT, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**settings),
        cwd=ROOT,
    )


@contextlib.contextmanager
def started(*arguments: str | Path, **settings: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command, and make sure that it has ended afterwards."""
    process = subprocess.Popen(
        [*PARROT, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**settings),
        cwd=ROOT,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@contextlib.contextmanager
def served(*arguments: str) -> Iterator[str]:
    """`parrot serve` on a free port of this machine; its URL."""
    with started("serve", "--port", "0", *arguments) as process:
        assert process.stderr is not None
        said: list[str] = []
        for line in process.stderr:
            said.append(line)
            if match := re.search(r"http://\S+", line):
                yield match[0]
                return
        raise AssertionError(f"the service did not come up; it said: {''.join(said)}")


class Screen:
    """The other end of a process's terminal."""

    def __init__(self, end: int) -> None:
        self._end = end
        self._unread = ""

    def type(self, line: str) -> None:
        """A line and Enter."""
        os.write(self._end, f"{line}\r".encode())

    def until(self, *texts: str) -> None:
        """Reads on until these have come, one after another (the test's timeout is the limit)."""
        for text in texts:
            while text not in self._unread:
                self._unread += os.read(self._end, 4096).decode(errors="replace")
            self._unread = self._unread.partition(text)[2]


@contextlib.contextmanager
def terminal(*arguments: str | Path, **settings: str) -> Iterator[tuple[subprocess.Popen[bytes], Screen]]:
    """Start a command on a terminal of its own, and make sure that it has ended afterwards."""
    ours, theirs = os.openpty()
    try:
        with subprocess.Popen(
            [*PARROT, *map(str, arguments)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment(TERM="dumb", **settings),
            cwd=ROOT,
        ) as process:
            os.close(theirs)
            try:
                yield process, Screen(ours)
            finally:
                process.kill()
    finally:
        os.close(ours)
