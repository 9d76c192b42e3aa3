"""What Parrot itself costs a request, with engines that cost nothing.

    python benchmarks/overhead.py --json overhead.json               # all points, each well under a minute
    python benchmarks/overhead.py added handle-16 --json overhead.json
    python benchmarks/overhead.py --json overhead.json --report docs/benchmarks/overhead.md

`machine`, `runtime`, `http`: requests per second through the machine alone, through the runtime, over HTTP.
`added`: latency of a request over HTTP, with and without the journal, and of a bare FastAPI echo of the same body, in
turns at a steady rate of arrivals. Parrot adds the difference of the medians, and of the 99th percentiles.
`handle-N`: time of `Machine.handle` with N engines, for a request that ends together with the one placed instead, and
for a request that is submitted, by the number of waiting requests; all of these machines take turns.
`lookup`: time to find the engines that hold a request's prefix, if all of them do.

Each point is written to the JSON at once, and not measured again while source and machine are the same.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from costs.machine import ENGINES, WAITING, handle_costs, lookup_costs, machine_alone
from costs.report import lines, markdown
from costs.wire import PATHS, added, over_http, runtime_alone, serve
from records import Records

from parrotserve.bench.marked import write_marked

Measured = dict[str, Any]


def measurements(options: argparse.Namespace) -> dict[str, Callable[[], Measured]]:
    """The measurements of all points, by name."""
    waiting = [number for number in WAITING if number <= options.most_waiting]
    count, rounds = options.count, options.rounds
    return {
        "machine": lambda: {"a_second": [round(machine_alone(count)) for _ in range(rounds)]},
        "runtime": lambda: {"a_second": [round(asyncio.run(runtime_alone(count))) for _ in range(rounds)]},
        "http": lambda: {"a_second": asyncio.run(over_http(options))},
        "added": lambda: {"rate": options.rate, "milliseconds": asyncio.run(added(options))},
        **{f"handle-{engines}": lambda engines=engines: handle_costs(engines, waiting, rounds) for engines in ENGINES},
        "lookup": lambda: {"microseconds": lookup_costs(rounds)},
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("points", nargs="*", help="machine, runtime, http, added, handle-1, ..., lookup (all)")
    parser.add_argument("--count", type=int, default=2000, help="requests in each measurement of throughput (2000)")
    parser.add_argument("--rate", type=float, default=200.0, help="arrivals a second for latencies (200)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of arrivals in each round (4)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--most-waiting", type=int, default=max(WAITING), help="leave out cases with more")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="the results: read, added to and written after every point")
    parser.add_argument("--report", type=Path, help="measure nothing; write the tables into this page")
    parser.add_argument("--role", choices=list(PATHS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role:
        serve(options.role)
        return
    settings = {name: getattr(options, name) for name in ("count", "rate", "seconds", "rounds", "most_waiting")}
    records = Records(options.json, "overhead", seed=options.seed, **settings)
    if options.report:
        write_marked(options.report, "benchmarks/overhead.py", markdown(records.points))
        return
    known = measurements(options)
    unknown = [name for name in options.points if name not in known]
    if unknown:
        parser.error(f"there is no point {', '.join(unknown)}; there are {', '.join(known)}")
    for name in options.points or known:
        began = time.perf_counter()
        if not records.has(name):
            records.put(name, known[name]())
        print(*lines(name, records.points[name]), f"   [{time.perf_counter() - began:.0f} s]", sep="\n", flush=True)


if __name__ == "__main__":
    main()
