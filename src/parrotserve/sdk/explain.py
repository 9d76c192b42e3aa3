"""Why a session's requests run where and when they do."""

from parrotserve.explain import explain_view
from parrotserve.protocol import SessionView
from parrotserve.sdk.session import Session, current_session


class Explanation:
    """What the service decided for each request of a session, and why. Printed, it is for people."""

    def __init__(self, view: SessionView) -> None:
        self.view = view
        """The session as the service saw it: all that is told, as data."""

    def json(self) -> str:
        """For programs: the requests and native calls of `view`."""
        return self.view.model_dump_json(include={"id": True, "requests": True, "calls": True}, indent=2)

    def __str__(self) -> str:
        return explain_view(self.view)

    __repr__ = __str__


def explain(session: Session | None = None) -> Explanation:
    """For each request of a session (None: the current one): its objective and why, what was found of its prompt, its
    engine and why not the others, how long it waited and ran."""
    return Explanation(current_session(session).view())
