"""Why a session's requests run where and when they do."""

from parrotserve.explain import explain_view
from parrotserve.protocol import SessionView
from parrotserve.sdk.session import Session, current_session


class Explanation:
    """What the service decided for each request of a session, and why. Printed, it is for people."""

    def __init__(self, view: SessionView) -> None:
        self.view = view
        """The session as the service saw it: everything that is explained, as data."""

    def json(self) -> str:
        """The requests and native calls of `view` as JSON, for programs."""
        return self.view.model_dump_json(include={"id": True, "requests": True, "calls": True}, indent=2)

    def __str__(self) -> str:
        return explain_view(self.view)

    __repr__ = __str__


def explain(session: Session | None = None) -> Explanation:
    """Explain each request of a session (None: the current one): its objective and why, how much of its prompt was in
    the KV cache, its engine and why not the others, how long it waited and ran. To be printed, or used as data."""
    return Explanation(current_session(session).view())
