"""The peers: llama.cpp by its C interface in a process of its environment, vLLM by its server."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from contenders.base import Contender, Tokens

sys.path.insert(0, str(Path(__file__).parent.parent / "peers"))
from places import gguf_of, llama_library

_WORKER = Path(__file__).parent.parent / "peers" / "llamacpp_engine.py"
VLLM_SETTLING = 8
"""Steps in which requests still join, and the last ones."""


class LlamaCpp(Contender):
    """llama.cpp with one kind of weights and one of its two attention paths. Its process is stopped between turns."""

    family = "llama.cpp"

    def __init__(self, weights: str, *, flash: bool, threads: int, context: int, sequences: int) -> None:
        self.name = f"llama.cpp {weights}{' flash' if flash else ''}"
        self._order = {
            "do": "load",
            "weights": str(gguf_of(weights)),
            "flash": flash,
            "threads": threads,
            "context": context,
            "sequences": sequences,
        }
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Bring it up."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            _WORKER,
            str(llama_library()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        await self._ask(self._order)

    async def prefill(self, prompt: Tokens) -> float:
        """Seconds of its decode calls."""
        return (await self._ask({"do": "prefill", "prompt": prompt}))["seconds"]

    async def decode(self, prefix: Tokens, suffixes: list[Tokens], steps: int) -> list[float]:
        """Seconds of each of its decode calls."""
        order = {"do": "decode", "prefix": prefix, "suffixes": suffixes, "steps": steps}
        return (await self._ask(order))["seconds"]

    def wake(self) -> None:
        """See `Contender.wake`."""
        self._signal(signal.SIGCONT)

    def rest(self) -> None:
        """See `Contender.rest`."""
        self._signal(signal.SIGSTOP)

    async def close(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        await self._process.stdin.drain()
        answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended.")
        return json.loads(answer)


class Vllm(Contender):
    """A vLLM server that runs already, with prefix caching. Its processes are stopped between turns if `group`, their
    process group, is known."""

    family = "vLLM"

    def __init__(self, url: str, model: str, *, group: int | None = None) -> None:
        self.name = "vLLM bf16"
        self._model = model
        self._group = group
        # Servers close connections that have been idle for some seconds; one must not be reused at that moment.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
        self._client = httpx.AsyncClient(base_url=url, timeout=600, limits=limits)
        self._prefix: Tokens = ()

    async def start(self) -> None:
        """It runs already."""
        self.wake()
        (await self._client.get("/v1/models")).raise_for_status()

    async def prefill(self, prompt: Tokens) -> float:
        """Seconds until its one token is there."""
        began = time.perf_counter()
        await self._times([prompt], 1)
        return time.perf_counter() - began

    async def decode(self, prefix: Tokens, suffixes: list[Tokens], steps: int) -> list[float]:
        """The mean step between the moment when all sequences have begun and the first one's end."""
        if prefix != self._prefix:
            await self._times([prefix], 1)  # so that its cache has it
            self._prefix = prefix
        times = await self._times([prefix + suffix for suffix in suffixes], steps + VLLM_SETTLING)
        began, ended = max(each[0] for each in times), min(each[-1] for each in times)
        count = sum(began < moment <= ended for moment in times[0])
        if not count:
            raise RuntimeError(f"vLLM never ran all {len(suffixes)} sequences together.")
        return [(ended - began) / count]

    def wake(self) -> None:
        """See `Contender.wake`."""
        if self._group is not None:
            os.killpg(self._group, signal.SIGCONT)

    def rest(self) -> None:
        """See `Contender.rest`."""
        if self._group is not None:
            os.killpg(self._group, signal.SIGSTOP)

    async def close(self) -> None:
        """Leave it as it rests: idle, it would still take a tenth of a core."""
        await self._client.aclose()
        self.rest()

    async def _times(self, prompts: list[Tokens], outputs: int) -> list[list[float]]:
        """When each token of each prompt's output came: one request with all prompts, which costs its server least."""
        body = {"model": self._model, "prompt": [list(prompt) for prompt in prompts], "max_tokens": outputs}
        body |= {"temperature": 0, "ignore_eos": True, "stream": True}
        times: list[list[float]] = [[] for _ in prompts]
        async with self._client.stream("POST", "/v1/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if line.startswith("data: {"):
                    times[json.loads(line[6:])["choices"][0]["index"]].append(time.perf_counter())
        return times
