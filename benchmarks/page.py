"""The page of all workloads, made of what `parrot bench --into` recorded: `python benchmarks/page.py docs/benchmarks`.

Nothing is left out: rows that lose, and trials that failed, are written like the others.
"""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from parrotserve.bench.report import reference_of, times_as_long
from parrotserve.bench.workload import Workload
from parrotserve.bench.workloads import WORKLOADS

_HEAD = """# Workloads, measured

Made by `python benchmarks/page.py {folder}` of the JSON files beside it, which have every trial. Times are in
seconds: the median, the range, and how many trials; *over on* says how many times as long as Parrot with everything on.
What workloads and sides are is in [README.md]({readme}).
"""


def page(folder: Path) -> str:
    """The whole page in Markdown."""
    readme = "README.md" if (folder / "README.md").exists() else "../README.md"
    parts = [_HEAD.format(folder=folder.as_posix(), readme=readme)]
    for name, workload in WORKLOADS.items():
        record = folder / f"{name}.json"
        if record.exists():
            parts += _section(workload, json.loads(record.read_text(encoding="utf-8")), folder)
    return "\n".join(parts)


def _section(workload: Workload, record: dict[str, Any], folder: Path) -> Iterator[str]:
    yield f"## {workload.name}\n"
    yield f"{workload.about[0].upper()}{workload.about[1:]}.\n"
    yield from _table(
        ("case", "round trip", "side", *(cell for name in workload.headline for cell in (name, "over on"))),
        [_row(workload, result, record["results"]) for result in record["results"]],
    )
    if record["sustained_rates"]:
        yield f"Requests a second sustained: up to {workload.bound} s an output token, and no queue that grows:\n"
        rates = [
            (f"{rate['delay_seconds'] * 1000:.0f} ms", rate["side"], f"{rate['requests_a_second']:.2f}")
            for rate in record["sustained_rates"]
        ]
        yield from _table(("round trip", "side", "requests/s"), rates)
    if (folder / f"{workload.name}.png").exists():
        yield f"![{workload.name}]({workload.name}.png)\n"
    yield from _circumstances(record)


def _row(workload: Workload, result: dict[str, Any], results: Sequence[dict[str, Any]]) -> list[str]:
    cells = [result["case"], f"{result['delay_seconds'] * 1000:.0f} ms", result["side"]]
    reference = reference_of(result, results, place=_place)
    for name in workload.headline:
        mine, its = _values(result, name), _values(reference, name) if reference else []
        if not mine:
            failures = dict.fromkeys(result["errors"].values())
            cells += ["; ".join(failures) or "-", ""]
            continue
        spread = f" ({min(mine):.2f}-{max(mine):.2f})" if len(mine) > 1 else ""
        cells.append(f"{median(mine):.2f}{spread}, {len(mine)}")
        cells.append(times_as_long(mine, its))
    return cells


def _place(result: dict[str, Any]) -> tuple[str, float, str]:
    return result["case"], result["delay_seconds"], result["side"]


def _values(result: dict[str, Any], figure: str) -> list[float]:
    return [found[figure] for found in result["rounds"].values() if figure in found]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'|'.join(['---'] * len(head))}|"
    for row in rows:
        yield f"| {' | '.join(row)} |"
    yield ""


def _circumstances(record: dict[str, Any]) -> Iterator[str]:
    last = record["sittings"][-1]
    machine, versions = last["machine"], last["versions"]
    yield (
        f"{machine['processor']}, {machine['cores']} cores; {machine['platform']}; "
        f"{', '.join(f'{name} {version}' for name, version in versions.items())}; seed {last['seed']}; "
        f"{len(record['sittings'])} sittings, {record['sittings'][0]['date']} to {last['date']}. "
        "The last one's command:\n"
    )
    yield f"```\n{last['command']}\n```\n"
    if told := _made(record["results"]):
        yield f"Trials by source: {told}.\n"


def _made(results: Sequence[dict[str, Any]]) -> str:
    """The number of trials for each source and server; empty if the record is too old to tell."""
    trials = [made for result in results for made in result.get("made", {}).values()]
    counted = Counter(f"{made.get('server', 'a server that does not say')}, {made['source']}" for made in trials)
    return "; ".join(f"{number} on {name}" for name, number in counted.items())


def main() -> None:
    """Write the page into the folder given on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="with the records, WORKLOAD.json")
    folder = parser.parse_args().folder
    if not folder.is_dir():
        parser.error(f"{folder} is no folder")
    (folder / "workloads.md").write_text(page(folder), encoding="utf-8")


if __name__ == "__main__":
    main()
