"""The entry point of the command `parrot`. It imports little, so that Ctrl-C is handled while the rest is loaded."""

import io
import os
import signal
import sys


def main() -> None:
    """Run the command."""
    try:
        sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        _never_refuse_characters()
        from parrotserve.cli.app import app

        app()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


def _never_refuse_characters() -> None:
    """Replace by `?` what a model writes and the output's encoding cannot represent."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")


if __name__ == "__main__":
    main()
