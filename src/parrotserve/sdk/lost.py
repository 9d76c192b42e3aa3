"""What is said where a service came back without what a session had there: sessions do not outlive their service.

What was declared in an exchange that is still open is sent again, and seeds are fixed where requests are declared, so
the same model on the same engine gives the same texts again. Where it does not, nothing is joined: that is an error.
"""

from parrotserve.errors import SessionLost

_ADVICE = "Call the functions again, and discard what was read before."


def contradicted(variable: str, service: str = "") -> SessionLost:
    """A text is another one than has been read of it. `variable` as people know it."""
    where = f" at {service}" if service else ""
    return SessionLost(
        f"The service{where} now produces a different text for {variable!r} than your program has read: it was "
        f"restarted with another model, other settings or another version. {_ADVICE}",
        variable=variable,
    )


def forgotten(session: str, service: str) -> SessionLost:
    """What the service had taken in is not there any more."""
    return SessionLost(
        f"The service at {service} does not have session {session} any more: it was restarted, or heard nothing from "
        f"the session for longer than its lease. {_ADVICE}",
        session=session,
    )
