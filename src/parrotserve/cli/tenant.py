"""`parrot tenant`: who may use a service, and how much."""

from typing import Annotated, Any

import typer

from parrotserve.cli.options import takes_data, takes_limits

Name = Annotated[str, typer.Argument(metavar="NAME", help="The tenant's name.")]


@takes_limits
@takes_data
def create(name: Name, settings: dict[str, Any], limits: dict[str, Any]) -> None:
    """Create a tenant. Its clients need a key: `parrot key create NAME`.

    \b
    Example:
      parrot tenant create search --weight 3 --tokens-per-minute 200000
    """
    from parrotserve.cli.console import standard_output
    from parrotserve.cli.tenants import opened
    from parrotserve.tenancy.limits import Limits

    with opened(settings) as store:
        store.create_tenant(name, Limits().changed(limits))
    standard_output().print(f"Created tenant {name}. Make it a key with: parrot key create {name}")


@takes_data
def list_(settings: dict[str, Any]) -> None:
    """List tenants, with the limits that differ from the defaults.

    \b
    Example:
      parrot tenant list
    """
    from rich.table import Table

    from parrotserve.cli.console import show_table
    from parrotserve.cli.tenants import opened
    from parrotserve.tenancy.limits import LIMITS

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("tenant", "keys", "limits"):
        table.add_column(column, overflow="fold")
    with opened(settings) as store:
        for tenant in store.tenants():
            keys = sum(key.revoked is None for key in store.keys(tenant.name))
            values = {one: getattr(tenant.limits, one.name) for one in LIMITS.values()}
            told = (f"{one.name}={one.shown(value)}" for one, value in values.items() if value != one.default)
            table.add_row(tenant.name, str(keys), ", ".join(told))
    show_table(table, "There are no tenants. Create one with: parrot tenant create NAME")


@takes_limits
@takes_data
def limits(name: Name, settings: dict[str, Any], limits: dict[str, Any]) -> None:
    """Change the given limits of a tenant, then show all.

    `none` removes a limit. Running services pick up changes at once.

    \b
    Examples:
      parrot tenant limits search
      parrot tenant limits search --sessions 10 --tokens-per-minute none
    """
    from parrotserve.cli.console import standard_output
    from parrotserve.cli.tenants import opened
    from parrotserve.tenancy.limits import LIMITS

    with opened(settings) as store:
        now = store.tenant(name).limits
        if any(value is not None for value in limits.values()):
            now = now.changed(limits)
            store.set_limits(name, now)
    console = standard_output()
    for one in LIMITS.values():
        console.print(f"{one.name:<20} {one.shown(getattr(now, one.name))}")
