"""Processes that a service starts: what ends them, and what is said of those that ended."""

import signal


def heed_the_service_alone() -> None:
    """In a process that a service has started: ignore the signals that tell a service to end.

    Some tell all of its processes at once, as systemd does. The service then lets what is waited for end, for which it
    needs them; it ends them itself, and its own end closes their pipes.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def signal_name(number: int) -> str:
    """What people call a signal: `SIGKILL`, or `signal 40` for one that has no name here, such as a real-time one."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
