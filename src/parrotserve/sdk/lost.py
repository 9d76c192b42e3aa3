"""Errors for a service that came back without what a session had there, as one does that keeps no journal.

What was declared in an exchange that is still open is sent again, and seeds are fixed when requests are declared, so
the same model on the same engine gives the same texts again. If a text differs, it is not joined to what was read
before: that is an error.
"""

from parrotserve.errors import SessionLost

_ADVICE = "Call the functions again, and discard what was read before."


def contradicted(variable: str, service: str = "") -> SessionLost:
    """The error for a text that differs from what was read before. `variable` is its name for people."""
    where = f" at {service}" if service else ""
    return SessionLost(
        f"The service{where} now produces a different text for {variable!r} than your program has read: it was "
        f"restarted with another model, other settings or another version. {_ADVICE}",
        variable=variable,
    )


def forgotten(session: str, service: str) -> SessionLost:
    """The error for a session that the service had accepted and no longer has."""
    return SessionLost(
        f"The service at {service} does not have session {session} any more: it was restarted, or heard nothing from "
        f"the session for longer than its lease. {_ADVICE}",
        session=session,
    )
