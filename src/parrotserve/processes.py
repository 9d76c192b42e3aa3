"""What is said of processes that ended."""

import signal


def signal_name(number: int) -> str:
    """What people call a signal: `SIGKILL`, or `signal 40` for one that has no name here, such as a real-time one."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
