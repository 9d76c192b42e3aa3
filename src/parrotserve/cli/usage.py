"""`parrot usage`: what tenants used."""

from typing import Annotated, Any

import typer

from parrotserve.cli.options import takes_data


@takes_data
def usage(
    settings: dict[str, Any],
    tenant: Annotated[
        str | None, typer.Argument(metavar="TENANT", help="Only this tenant's.", show_default="all")
    ] = None,
) -> None:
    """Show what tenants used, by day (UTC).

    A running service updates it every 5 seconds.

    \b
    Example:
      parrot usage search
    """
    from rich.table import Table

    from parrotserve.cli.console import show_table
    from parrotserve.cli.tenants import opened
    from parrotserve.ids import LOCAL_TENANT

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("day", "tenant", "requests", "prompt", "cached", "output", "engine seconds"):
        table.add_column(column, justify="left" if column in ("day", "tenant") else "right")
    with opened(settings) as store:
        rows = store.usage(tenant)
        if tenant not in (None, LOCAL_TENANT) and not rows:
            store.tenant(tenant)  # raises if there is no such tenant, as after a typo
        for day, name, used in rows:
            counts = (used.requests, used.prompt_tokens, used.cached_tokens, used.output_tokens)
            table.add_row(day, name, *map(str, counts), f"{used.seconds:.1f}")
    show_table(table, "There is no use yet" + (f" of tenant {tenant!r}." if tenant else "."))
