"""Durability: what happened is shown only once the journal has it."""

from parrotserve.errors import ServiceUnavailable
from parrotserve.store.journal import Journal


class Durability:
    """The journal's word that things are kept; without a journal nothing is, and nobody waits."""

    def __init__(self) -> None:
        self.journal: Journal | None = None

    def check(self) -> None:
        """Raises `ServiceUnavailable` while the journal cannot be written."""
        if self.journal is not None:
            self.journal.check()

    async def committed(self) -> None:
        """Wait until all that happened so far would survive the death of this process. Raises `ServiceUnavailable`
        while the journal cannot be written."""
        if self.journal is not None:
            await self.journal.committed()

    async def batch_committed(self) -> None:
        """The same after a batch was taken in. The error says that it runs: it is not taken back, because it may have
        grown a session that others use, and because it is written as soon as that is possible."""
        try:
            await self.committed()
        except ServiceUnavailable as error:
            told = (
                f"{error.message} The batch was taken in and runs, but is not told of, or sure to last, before it is "
                "written: send it again, with the same ids."
            )
            raise ServiceUnavailable(told) from error
