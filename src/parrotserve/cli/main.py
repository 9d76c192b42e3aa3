"""The entry point of the command `parrot`: it loads at once, so that Ctrl-C is answered while the rest is loaded."""

import os
import signal
import sys


def main() -> None:
    """Run the command."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - for as long as the process lives
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    try:
        from parrotserve.cli.app import app
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    app()


if __name__ == "__main__":
    main()
