"""`parrot doctor`: checks of this installation."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from parrotserve.doctor import Finding

_MARKS = {"good": ("ok", "green"), "notice": ("!", "yellow"), "broken": ("X", "bold red")}


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, for programs and bug reports.")] = False,
) -> None:
    """Check this installation: what it runs on and why, and what is wrong.

    Exits with 1 if there is a problem. Changes, fetches and starts nothing; network checks take a few seconds at most.

    \b
    Examples:
      parrot doctor
      parrot doctor --json > report.json
    """
    import json

    from parrotserve.doctor import Verdict, examine

    if as_json:
        findings = list(examine())
        broken = any(one.verdict is Verdict.BROKEN for one in findings)
        print(json.dumps({"ok": not broken, "findings": [_plain(one) for one in findings]}, indent=2))
    else:
        broken = _tell(examine())
    if broken:
        raise typer.Exit(1)


def _plain(finding: "Finding") -> dict[str, object]:
    return {
        "subject": finding.subject,
        "verdict": finding.verdict,
        "found": finding.found,
        "advice": finding.advice,
        "details": finding.details,
    }


def _tell(findings: "Iterable[Finding]") -> bool:
    """Print each finding as it comes, with its advice, then a summary. Returns whether something is broken."""
    from rich.padding import Padding
    from rich.text import Text

    from parrotserve.cli.console import harmless, standard_output
    from parrotserve.doctor import Verdict

    console = standard_output()
    counts = dict.fromkeys(Verdict, 0)
    for one in findings:
        counts[one.verdict] += 1
        mark, style = _MARKS[one.verdict]
        console.print(Text.assemble((f"{mark:<3}", style), (f"{one.subject:<10}", "bold"), harmless(one.found)))
        if one.advice:
            console.print(Padding(Text(f"-> {harmless(one.advice)}", style=style), (0, 0, 0, 13), expand=False))
    broken, notices = counts[Verdict.BROKEN], counts[Verdict.NOTICE]
    console.print()
    if broken:
        console.print(f"{broken} problem{'s' * (broken > 1)}; see the lines marked X.", style="bold red")
    elif notices:
        console.print("Everything works; see the lines marked ! for what could be better.", style="yellow")
    else:
        console.print("Everything works.", style="green")
    return broken > 0
