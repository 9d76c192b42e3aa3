"""The embedded service, for programs that configure no other. The only bridge from the SDK to the runtime."""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from parrotserve.config import ServiceConfig
from parrotserve.errors import ServiceUnavailable
from parrotserve.ids import CallId, SessionId, VariableId
from parrotserve.protocol import CallOffer, CallResult, CallState, SessionView, Submit, VariableEvent
from parrotserve.runtime.catalog import Loader, load_model
from parrotserve.runtime.service import Service


class EmbeddedTransport:
    """A `Transport` to a service that runs in the same event loop; its engines run in their own processes.

    The service starts with `open` and ends with `close`. The leases of its sessions do not expire, because their client
    is in the same process. Without `config`, settings come from the environment and the settings file, and models other
    than the configured ones are served on demand, also by path. `load` loads models; tests pass one that makes fakes.
    """

    def __init__(self, config: ServiceConfig | None = None, *, load: Loader = load_model) -> None:
        self._config = config
        self._load = load
        self._service: Service | None = None
        self._holds: dict[SessionId, ExitStack] = {}

    def __repr__(self) -> str:
        return "EmbeddedTransport()"

    async def open(self) -> None:
        """Start the service, with a progress bar on standard error while a model is pulled. Raises `ModelError`, and
        `EngineFailed` if no engine starts."""
        config = self._config or ServiceConfig.load(on_demand=True)
        with PullBar() as bar:
            service = await Service.start(config, progress=bar, load=self._load, by_path=True)
        try:
            await service.wait_started()
        except BaseException:
            await service.close()
            raise
        self._service = service

    async def close(self) -> None:
        """End the service and its processes."""
        service, self._service = self._service, None
        self._holds.clear()
        if service is not None:
            await service.close()

    async def submit(self, body: Submit) -> AsyncGenerator[VariableEvent, None]:
        """Declare a batch and wait for variables."""
        service = self._running()
        with PullBar() as bar:
            accepted, answer = await service.declare(body, progress=bar)
        self._hold(service, SessionId(body.session))
        async with aclosing(answer) as events:
            yield accepted
            async for event in events:
                yield event

    async def stream(
        self, session: SessionId, variable: VariableId, offset: int
    ) -> AsyncGenerator[VariableEvent, None]:
        """The text of a variable from character `offset` on, then its value or failure."""
        async with aclosing(self._running().stream(session, variable, offset=offset)) as events:
            async for event in events:
                yield event

    async def set_value(self, session: SessionId, variable: VariableId, value: str) -> None:
        """Make an EMPTY variable READY."""
        self._running().set_value(session, variable, value)

    async def retry(self, session: SessionId, variable: VariableId) -> None:
        """Run the failed or cancelled producer of a variable again."""
        self._running().retry(session, variable)

    async def cancel(self, session: SessionId, variable: VariableId) -> None:
        """Cancel the producer of a variable."""
        self._running().cancel_variable(session, variable)

    async def end_session(self, session: SessionId) -> None:
        """Cancel what still runs in a session and free it."""
        service = self._running()
        try:
            service.end_session(session)
        finally:
            hold = self._holds.pop(session, None)
            if hold is not None:
                hold.close()

    async def session_view(self, session: SessionId) -> SessionView:
        """The session's graph with states and timings."""
        return self._running().session_view(session)

    async def calls(self, session: SessionId) -> AsyncGenerator[CallOffer, None]:
        """Native calls of the session whose inputs are ready."""
        async with aclosing(self._running().calls(session)) as offers:
            async for offer in offers:
                yield offer

    async def put_result(
        self, session: SessionId, call: CallId, result: CallResult, *, attempt: int | None = None
    ) -> CallState:
        """Answer a `CallOffer`."""
        return self._running().put_result(session, call, result, attempt=attempt)

    def _running(self) -> Service:
        if self._service is None:
            raise ServiceUnavailable("The embedded service is not running: it was closed, or never opened.")
        return self._service

    def _hold(self, service: Service, session: SessionId) -> None:
        if session not in self._holds:
            hold = self._holds[session] = ExitStack()
            hold.enter_context(service.attached(session))


class PullBar:
    """A progress bar on standard error that appears when the first bytes of a model come."""

    def __init__(self) -> None:
        self._bars: Bars | None = None

    def __enter__(self) -> "PullBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes (0: unknown) have come. Called from the thread that pulls."""
        if self._bars is None:
            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
            self._bars = Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._bars.add_task("Fetching the model (once)", total=None)
            self._bars.start()
        task = self._bars.task_ids[0]
        self._bars.update(task, completed=done, total=total or None)
