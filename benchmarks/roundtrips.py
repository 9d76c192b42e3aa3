"""What distance to the service costs a chain of dependent calls: with and without a delay of every HTTP exchange.

    python benchmarks/roundtrips.py                        # the protocol alone: a model without weights
    python benchmarks/roundtrips.py --model smollm2-135m   # with real decoding

Each run is one program of dependent calls against a `parrot serve` that is started for this benchmark: `chain` declares
all calls and gets the last value; `step by step` gets every value before the next call, as clients of single requests
must. Each is measured without and with a delay, which stands for a network's round trip and is added to every HTTP
exchange (`HttpTransport(delay=)`). Runs are interleaved, medians are shown with ranges, and all runs must give the same
text.

The target: a chain with delay takes at most 1.2 delays longer than one without. The exit code is 1 if it is missed.
"""

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from Parrot import SemanticFunction, Session
from parrotserve.bench.circumstances import circumstances
from parrotserve.bench.served import served
from parrotserve.sdk.connection import use
from parrotserve.sdk.http import HttpTransport

TARGET_DELAYS = 1.2
BEGINNING = "A parrot repeats what it hears."


class CountingWire(httpx.AsyncHTTPTransport):
    """The network transport, with a list of the exchanges that it made."""

    def __init__(self) -> None:
        super().__init__()
        self.exchanges: list[str] = []
        """Method and path of each."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Note an exchange, then make it."""
        self.exchanges.append(f"{request.method} {request.url.path}")
        return await super().handle_async_request(request)


@SemanticFunction(max_tokens=32, ignore_eos=True)  # always the same number of tokens, so that all runs are equal work
def go_on(text):
    """Say this in other words: {{input:text}} {{output:more}}"""


def chain(calls: int) -> str:
    """Declare all calls, then get the last value."""
    text = go_on(BEGINNING)
    for _ in range(calls - 1):
        text = go_on(text)
    return text.get()


def step_by_step(calls: int) -> str:
    """Get every value before the next call."""
    text = BEGINNING
    for _ in range(calls):
        text = go_on(text).get()
    return text


@dataclass
class Series:
    """All runs of one program with one delay."""

    program: Callable[[int], str]
    delay: float
    seconds: list[float] = field(default_factory=list)
    exchanges: list[int] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)

    @property
    def name(self) -> str:
        """The program's name, for people."""
        return self.program.__name__.replace("_", " ")

    @property
    def median(self) -> float:
        """Median time in seconds."""
        return statistics.median(self.seconds)

    def run(self, url: str, calls: int) -> None:
        """Run the program once more. Neither opening the connection nor the session's end is timed."""
        wire = CountingWire()
        with use(HttpTransport(url, delay=self.delay, wire=wire)), Session() as session:
            go_on("Hello.").get()
            wire.exchanges.clear()
            began = time.perf_counter()
            text = self.program(calls)
            self.seconds.append(time.perf_counter() - began)
            self.exchanges.append(len(wire.exchanges))
            self.texts.add(text)
            session.end()


def report(options: argparse.Namespace, plain: list[Series], delayed: list[Series]) -> dict[str, Any]:
    """Everything that was measured, and the circumstances."""
    return {
        "benchmark": "roundtrips",
        **circumstances(),
        "model": options.model,
        "calls": options.calls,
        "max_tokens": go_on.samplings["more"].max_tokens,
        "delay_seconds": options.delay,
        "runs": [
            {
                "program": series.name,
                "delay_seconds": series.delay,
                "seconds": [round(each, 4) for each in series.seconds],
                "median_seconds": round(series.median, 4),
                "exchanges": series.exchanges,
            }
            for series in (*plain, *delayed)
        ],
        "extra_delays": {
            far.name: round((far.median - near.median) / options.delay, 3)
            for near, far in zip(plain, delayed, strict=True)
        },
        "target_delays": TARGET_DELAYS,
    }


def table(result: dict[str, Any]) -> Table:
    """A result as a table for people."""
    shown = Table(title=f"{result['calls']} dependent calls, model {result['model']}", title_justify="left")
    for column in ("program", "delay", "exchanges", "median", "range", "delays more than without"):
        shown.add_column(column, justify="left" if column == "program" else "right")
    for run in result["runs"]:
        far = run["delay_seconds"] > 0
        shown.add_row(
            run["program"],
            f"{run['delay_seconds'] * 1000:.0f} ms",
            str(max(run["exchanges"])),
            f"{run['median_seconds']:.3f} s",
            f"{min(run['seconds']):.3f} - {max(run['seconds']):.3f} s",
            f"{result['extra_delays'][run['program']]:.2f}" if far else "",
        )
    return shown


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="fake", help="name or path; default: a model without weights")
    parser.add_argument("--delay", type=float, default=0.25, help="seconds for every HTTP exchange (0.25)")
    parser.add_argument("--calls", type=int, default=8, help="length of the chain (8)")
    parser.add_argument("--repeat", type=int, default=5, help="runs of each program with each delay (5)")
    parser.add_argument("--json", type=Path, help="write the JSON there instead of below the table")
    options = parser.parse_args()
    if options.delay <= 0 or min(options.calls, options.repeat) < 1:
        parser.error("--delay must be above 0; --calls and --repeat at least 1")
    return options


async def measure(options: argparse.Namespace, series: list[Series]) -> None:
    """Make all runs, interleaved."""
    async with served(("--model", options.model)) as url:
        # A first run, so that the KV of these prompts is in the cache for all measured runs alike.
        await asyncio.to_thread(Series(chain, 0.0).run, url, options.calls)
        for _ in range(options.repeat):
            for each in series:
                await asyncio.to_thread(each.run, url, options.calls)


def main() -> None:
    """Measure, print, judge."""
    options = arguments()
    plain = [Series(chain, 0.0), Series(step_by_step, 0.0)]
    delayed = [Series(chain, options.delay), Series(step_by_step, options.delay)]
    asyncio.run(measure(options, [*plain, *delayed]))
    if len(set.union(*(series.texts for series in (*plain, *delayed)))) != 1:
        sys.exit("The runs gave different texts, so they were not the same work.")
    result = report(options, plain, delayed)
    Console(width=110).print(table(result))
    written = json.dumps(result, indent=2)
    if options.json:
        options.json.write_text(written + "\n", encoding="utf-8")
    else:
        print(written)
    if result["extra_delays"]["chain"] > TARGET_DELAYS:
        sys.exit(f"The target of {TARGET_DELAYS} delays was missed.")


if __name__ == "__main__":
    main()
