"""Processes that a service starts: the signals that they ignore, and names of signals that ended them."""

import signal


def heed_the_service_alone() -> None:
    """In a process that a service has started: ignore the signals that tell a service to end.

    Some, such as systemd, signal all processes of a service at once. The service then completes what is waited for, and
    needs its processes for that. It ends them itself; should it die, their pipes close.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def signal_name(number: int) -> str:
    """The name of a signal: `SIGKILL`, or `signal 40` for one without a name here, such as a real-time signal."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
