"""`parrot sessions`: the sessions that a service has."""

from typing import TYPE_CHECKING, Annotated

import typer

from parrotserve.cli.explain import Url

if TYPE_CHECKING:
    from parrotserve.listing import SessionSummary

_STATES = ("running", "offered", "queued", "waiting", "done", "failed", "cancelled")
"""States of requests and native calls in the order in which they are listed: active ones first."""
_UNITS = (("days", 86400), ("h", 3600), ("min", 60))


def sessions(
    url: Url = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.", show_default="all")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print all that is known, as JSON.")] = False,
) -> None:
    """List a service's sessions, in the order in which they were opened.

    For each session: its tenant, when it was opened and last used, and how many of its requests and native calls are
    in each state. Shows the sessions of the tenant whose key is in PARROT_API_KEY; with an operator's key, or on a
    service without keys, all sessions. `parrot explain SESSION` says why a session's requests run where and when they
    do.

    \b
    Examples:
      PARROT_URL=http://127.0.0.1:8000 parrot sessions
      parrot sessions --url http://127.0.0.1:8000 --tenant search --json
    """
    import asyncio
    import time

    from rich.table import Table

    from parrotserve.cli.console import harmless, standard_error, standard_output
    from parrotserve.cli.service import service_at
    from parrotserve.ids import TenantId
    from parrotserve.listing import SessionList

    transport = service_at(url)

    async def look() -> "list[SessionSummary]":
        await transport.open()
        try:
            return await transport.sessions(None if tenant is None else TenantId(tenant))
        finally:
            await transport.close()

    found, now = asyncio.run(look()), time.time()
    if json:
        standard_output().out(SessionList(data=tuple(found), next=None).model_dump_json(indent=2))
        return
    if not found:
        whose = "" if tenant is None else f" of tenant {tenant!r}"
        standard_error().print(f"There is no session{whose} now: one lives from a program's first call to its end.")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("session", "tenant", "opened", "last used", "requests"):
        table.add_column(column, overflow="fold", no_wrap=column == "session")
    for one in found:
        used = "now" if one.exchanges else _ago(now - one.last_used)
        table.add_row(harmless(one.id), harmless(one.tenant), _ago(now - one.opened), used, _work(one))
    standard_output().print(table)


def _work(session: "SessionSummary") -> str:
    """`3 running, 1 done; native calls: 1 offered`."""
    requests, calls = _counted(session.requests), _counted(session.calls)
    return "; ".join(filter(None, (requests, f"native calls: {calls}" if calls else "")))


def _counted(states: dict[str, int]) -> str:
    return ", ".join(f"{states[state]} {state}" for state in _STATES if state in states)


def _ago(seconds: float) -> str:
    """How long ago something was, in words. Negative numbers count as 0: the service's clock may be ahead of ours."""
    for unit, length in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit} ago"
    return f"{max(seconds, 0.0):.0f} s ago"
