"""Sides: the systems under comparison. Each provides, for one trial, a runner of applications."""

import contextlib
import dataclasses
import os
import shlex
import signal
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

import httpx

from parrotserve import __version__
from parrotserve.bench.clients import Runner, on_openai, on_parrot, step_by_step, whole
from parrotserve.bench.served import served
from parrotserve.bench.workload import Application
from parrotserve.criteria import Criteria
from parrotserve.errors import DeclarationError, ServiceUnavailable
from parrotserve.models.tokenizer import Tokenizer
from parrotserve.sdk.http import HttpTransport
from parrotserve.switches import EVERYTHING, Switches

REFERENCE = "on"
"""The side that all others are compared with."""
PEERS = ("vllm", "vllm-ngram", "llamacpp", "llamacpp-ngram")
"""Sides that are other projects' servers, given by their addresses; `ngram`: with drafts by prompt lookup."""

_VERSIONS = (("/version", "version", "vLLM"), ("/props", "build_info", "llama.cpp"))
"""How to find a server's version: path, field of the answer, and the server's name."""
_VERSION_SECONDS = 10.0


class Side(ABC):
    """One way of running applications."""

    name: str
    about: str

    @abstractmethod
    def serving(self, delay: float, service: Sequence[str] = ()) -> AbstractAsyncContextManager[Runner]:
        """Provide a runner for one trial, on a service that is up and has none of the trial's text in its cache.

        `delay` seconds are added to every exchange. `service` are options of `parrot serve` for this trial; other
        servers ignore them.
        """

    def takes(self, application: Application) -> Application | None:
        """The application as this side runs it; None if it does not run it."""
        return application

    async def served_by(self, service: Sequence[str] = ()) -> Mapping[str, str]:
        """For a trial's record: the server, its version and its options, as far as known. To be called in `serving`."""
        return {}


@dataclass(frozen=True, slots=True)
class ParrotSide(Side):
    """`parrot serve`, started for each trial."""

    name: str
    about: str
    options: tuple[str, ...] = ()
    program: bool = True
    """Whether it gets whole applications, rather than single calls from a client program."""
    criteria: Criteria | None = None
    """Criteria that replace the applications' own."""
    only: tuple[str, ...] = ()
    """The kinds of applications that it runs; empty: all."""

    def takes(self, application: Application) -> Application | None:
        """See `Side.takes`."""
        if self.only and application.kind not in self.only:
            return None
        return dataclasses.replace(application, criteria=self.criteria) if self.criteria else application

    async def served_by(self, service: Sequence[str] = ()) -> Mapping[str, str]:
        """See `Side.served_by`. Settings that the options do not name have their defaults."""
        return {"server": f"parrotserve {__version__}", "options": shlex.join((*self.options, *service))}

    @contextlib.asynccontextmanager
    async def serving(self, delay: float, service: Sequence[str] = ()) -> AsyncGenerator[Runner]:
        """See `Side.serving`."""
        async with served((*self.options, *service)) as url:
            transport = HttpTransport(url, delay=delay)
            await transport.open()
            try:
                yield whole(transport) if self.program else step_by_step(on_parrot(transport))
            finally:
                await transport.close()


@dataclass(frozen=True, slots=True)
class OpenAiSide(Side):
    """A client program over a running server that speaks OpenAI's protocol; prompts are sent as token ids."""

    name: str
    about: str
    url: str
    model: str
    tokenizer: Tokenizer
    group: int | None = None
    """The server's process group, which is stopped (SIGSTOP) between this side's trials."""

    @contextlib.asynccontextmanager
    async def serving(self, delay: float, service: Sequence[str] = ()) -> AsyncGenerator[Runner]:
        """See `Side.serving`. Its cache may hold text of earlier trials, but that is different text."""
        # Servers close connections that were idle for some seconds: drop them earlier, so that none is reused then.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
        with awake(self.group):
            async with httpx.AsyncClient(base_url=self.url, timeout=900.0, limits=limits) as client:
                yield step_by_step(on_openai(client, self.model, self.tokenizer, delay=delay))

    async def served_by(self, service: Sequence[str] = ()) -> Mapping[str, str]:
        """See `Side.served_by`."""
        async with httpx.AsyncClient(base_url=self.url, timeout=_VERSION_SECONDS) as client:
            return await version_told(client)


async def version_told(client: httpx.AsyncClient) -> Mapping[str, str]:
    """The server's name and version; empty if it does not tell."""
    for path, field, server in _VERSIONS:
        with contextlib.suppress(httpx.HTTPError, ValueError, KeyError, TypeError):
            answer = (await client.get(path)).raise_for_status()
            return {"server": f"{server} {answer.json()[field]}"}
    return {}


@contextlib.contextmanager
def awake(group: int | None) -> Generator[None]:
    """Let a process group run (SIGCONT) while this is open, and stop it (SIGSTOP) afterwards. Raises
    `ServiceUnavailable` if it is gone."""
    if group is None:
        yield
        return
    try:
        os.killpg(group, signal.SIGCONT)
    except ProcessLookupError as error:
        raise ServiceUnavailable(f"There is no process group {group}: the server has ended.") from error
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGSTOP)


def parrot_sides(options: Sequence[str], *, cap: int) -> dict[str, ParrotSide]:
    """The sides that are Parrot: with everything on, everything off, each single optimisation off, and some others.
    `options` go to `parrot serve`; `cap` is the batch size of the latency-centric baseline."""
    base = tuple(options)
    off = (*base, "--without", EVERYTHING)
    sides = [
        ParrotSide(REFERENCE, "Parrot, everything on", base),
        ParrotSide("off", "everything off, driven by a client program", off, program=False),
        ParrotSide(
            "capped",
            f"as off, at most {cap} sequences in a batch: latency-centric serving",
            (*off, "--max-running", str(cap)),
            program=False,
        ),
        ParrotSide(
            "throughput", "everything on, and everything asked for throughput", base, criteria=Criteria.THROUGHPUT
        ),
        ParrotSide(
            "chat priority",
            "everything on, and steps with room for others only while no chat is being written",
            (*base, "--tpot", "0.001"),
        ),
        ParrotSide("chats alone", "everything on, without the jobs beside", base, only=("chat",)),
    ]
    sides += [
        ParrotSide(f"without {field.name}", f"all but {field.name}", (*base, "--without", field.name))
        for field in dataclasses.fields(Switches)
    ]
    return {side.name: side for side in sides}


def choose(names: Sequence[str], there: dict[str, Side]) -> list[Side]:
    """Sides by name; `ablations` stands for all sides `without` something. Raises `DeclarationError` for others."""
    chosen: dict[str, Side] = {}
    for name in names:
        if name == "ablations":
            chosen |= {each: side for each, side in there.items() if each.startswith("without ")}
        elif name in there:
            chosen[name] = there[name]
        elif name in PEERS:
            raise DeclarationError(
                f"The side {name!r} is a server that runs already: name it by --{name} URL, or have it started by "
                f"benchmarks/workloads.py, after benchmarks/peers/install.py {name.partition('-')[0]}."
            )
        else:
            raise DeclarationError(f"There is no side {name!r}; there are: {', '.join(there)}, ablations.")
    return list(chosen.values())
