"""What Parrot itself costs a request, with engines that cost nothing.

    python benchmarks/overhead.py --json docs/benchmarks/overhead.json

1. Requests a second through the machine alone, through the runtime, and over HTTP.
2. Time that a request takes over HTTP beside a bare FastAPI echo of the same body, at a steady rate of arrivals, in
   turns; what Parrot adds is the difference of the medians, and of the 99th percentiles.
3. What `Machine.handle` takes for one request that ends and the one that is placed instead, and for one that is
   submitted, by how many requests wait and how many engines there are; and what finding the engines that hold a
   request's prefix takes, where all of them do.
"""

import argparse
import asyncio
import json
import statistics
from pathlib import Path
from typing import Any

from costs.machine import ENGINES, WAITING, handle_costs, lookup_cost, machine_alone
from costs.wire import over_http, runtime_alone, serve
from rich.console import Console
from rich.table import Table

from parrotserve.bench.circumstances import circumstances


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All of it."""
    result: dict[str, Any] = {"benchmark": "overhead", **circumstances(seed=options.seed), "rate": options.rate}
    result["machine_requests_a_second"] = [round(machine_alone(options.count)) for _ in range(options.rounds)]
    result["runtime_requests_a_second"] = [
        round(asyncio.run(runtime_alone(options.count))) for _ in range(options.rounds)
    ]
    asyncio.run(over_http(options, result))
    result["handle_microseconds"] = [
        {"waiting": waiting, "engines": engines}
        | {name: round(each, 1) for name, each in handle_costs(waiting, engines).items()}
        for engines in ENGINES
        for waiting in WAITING
        if waiting <= options.most_waiting
    ]
    result["prefix_lookup_microseconds"] = {str(engines): round(lookup_cost(engines), 2) for engines in ENGINES}
    return result


def show(result: dict[str, Any]) -> None:
    """For people."""
    console = Console(width=110)
    table = Table(title="Requests a second", title_justify="left")
    for column in ("through", "median", "range"):
        table.add_column(column, justify="left" if column == "through" else "right")
    rows = {"the machine": result["machine_requests_a_second"], "the runtime": result["runtime_requests_a_second"]}
    rows |= {f"{name} over HTTP": rates for name, rates in result["http_requests_a_second"].items()}
    for name, rates in rows.items():
        table.add_row(name, f"{statistics.median(rates):,.0f}", f"{min(rates):,} - {max(rates):,}")
    console.print(table)
    table = Table(title=f"Milliseconds a request at {result['rate']:g} a second", title_justify="left")
    for column in ("server", "p50", "p99"):
        table.add_column(column, justify="left" if column == "server" else "right")
    for name, found in result["latency_milliseconds"].items():
        table.add_row(name, *(f"{statistics.median(found[q]):.2f} ({min(found[q])}-{max(found[q])})" for q in found))
    table.add_row("Parrot adds", *(f"{each:.2f}" for each in result["added_milliseconds"].values()))
    console.print(table)
    table = Table(title="Microseconds of Machine.handle", title_justify="left")
    for column in ("engines", "waiting", "end one, place the next", "submit one"):
        table.add_column(column, justify="right")
    for row in result["handle_microseconds"]:
        table.add_row(*(f"{row[name]:,}" for name in ("engines", "waiting", "end_and_place", "submit")))
    console.print(table)
    lookups = ", ".join(f"{each} with {engines}" for engines, each in result["prefix_lookup_microseconds"].items())
    console.print(f"Microseconds of looking a prefix up, by engines: {lookups}")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=4000, help="requests in each measurement of throughput (4000)")
    parser.add_argument("--rate", type=float, default=200.0, help="arrivals a second for latencies (200)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of arrivals in each round (5)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most-waiting", type=int, default=max(WAITING), help="leave out cases with more")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the JSON there too")
    parser.add_argument("--role", choices=["parrot", "echo"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        serve(options.role)
        return
    result = measure(options)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
