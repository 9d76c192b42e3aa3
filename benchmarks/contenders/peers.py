"""The peers: llama.cpp by its C interface in a process of its environment, vLLM by its server."""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from contenders.base import SUFFIX, Contender, draw

sys.path.insert(0, str(Path(__file__).parent.parent / "peers"))
from places import gguf_of, llama_library

_WORKER = Path(__file__).parent.parent / "peers" / "llamacpp_engine.py"


class LlamaCpp(Contender):
    """llama.cpp with one kind of weights and one of its two attention paths."""

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

    async def prefill(self, tokens: int, seed: int) -> float:
        """Seconds of its decode calls."""
        return (await self._ask({"do": "prefill", "tokens": tokens, "seed": seed}))["seconds"]

    async def decode(self, batch: int, prefix: int, steps: int, seed: int) -> list[float]:
        """Seconds of each of its decode calls."""
        order = {"do": "decode", "batch": batch, "prefix": prefix, "steps": steps, "seed": seed}
        return (await self._ask(order))["seconds"]

    async def close(self) -> None:
        """End it."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()

    async def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        answer = await self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{self.name} ended.")
        return json.loads(answer)


class Vllm(Contender):
    """A vLLM server that runs already, with prefix caching."""

    family = "vLLM"

    def __init__(self, url: str, model: str, vocabulary: int) -> None:
        self.name = "vLLM bf16"
        self._vocabulary = vocabulary
        self._model = model
        # Servers close connections that have been idle for some seconds; one must not be reused at that moment.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=1.0)
        self._client = httpx.AsyncClient(base_url=url, timeout=600, limits=limits)

    async def start(self) -> None:
        """It runs already."""
        (await self._client.get("/v1/models")).raise_for_status()

    async def prefill(self, tokens: int, seed: int) -> float:
        """Seconds until its one token is there."""
        began = time.perf_counter()
        await self._tokens(draw(f"prefill {seed}", tokens, self._vocabulary), 1)
        return time.perf_counter() - began

    async def decode(self, batch: int, prefix: int, steps: int, seed: int) -> list[float]:
        """The mean step between the moment when all sequences have begun and the first one's end."""
        shared = draw(f"prefix {prefix}", prefix, self._vocabulary)
        await self._tokens(shared, 1)  # so that its cache has it
        outputs = steps + 8 + batch * SUFFIX // 128
        prompts = [shared + draw(f"suffix {seed} {index}", SUFFIX, self._vocabulary) for index in range(batch)]
        times = await asyncio.gather(*(self._tokens(prompt, outputs) for prompt in prompts))
        began, ended = max(each[0] for each in times), min(each[-1] for each in times)
        count = sum(began < moment <= ended for moment in times[0])
        if not count:
            raise RuntimeError(f"vLLM never ran all {batch} sequences together.")
        return [(ended - began) / count]

    async def close(self) -> None:
        """Leave it running."""
        await self._client.aclose()

    async def _tokens(self, prompt: tuple[int, ...], outputs: int) -> list[float]:
        """When each token came."""
        body = {"model": self._model, "prompt": list(prompt), "max_tokens": outputs, "temperature": 0}
        body |= {"ignore_eos": True, "stream": True}
        async with self._client.stream("POST", "/v1/completions", json=body) as answer:
            answer.raise_for_status()
            return [time.perf_counter() async for line in answer.aiter_lines() if line.startswith("data: {")]
