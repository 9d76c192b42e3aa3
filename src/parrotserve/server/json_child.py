"""Main module of the process that parses big bodies: reads them from standard input, writes values to its output."""

import contextlib
import os
import pickle
import sys

from parrotserve.processes import heed_the_service_alone
from parrotserve.sandbox.frames import read_frame, write_frame
from parrotserve.server.json_bodies import parse

_NICENESS = 5
"""Lower priority than the service and its engines: if processors are scarce, the senders of big bodies wait."""


def main() -> None:
    """Serve until standard input ends."""
    heed_the_service_alone()
    most_values = int(sys.argv[1])
    with contextlib.suppress(AttributeError, OSError):  # Windows has no `nice`
        os.nice(_NICENESS)
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while (body := read_frame(source)) is not None:
        write_frame(sink, pickle.dumps(parse(body, most_values=most_values)))


if __name__ == "__main__":
    main()
