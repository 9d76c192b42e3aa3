"""`parrot key`: API keys of tenants."""

from typing import Annotated, Any

import typer

from parrotserve.cli.options import takes_data


@takes_data
def create(
    tenant: Annotated[str, typer.Argument(metavar="TENANT", help="The tenant whose key it is.")],
    settings: dict[str, Any],
    label: Annotated[str, typer.Option(help="A note to tell keys apart.")] = "",
    operator: Annotated[
        bool, typer.Option("--operator", help="Also give access to what concerns all tenants: metrics, engines, usage.")
    ] = False,
) -> None:
    """Make a key and print it, once: only its hash is kept.

    Standard output gets only the key; messages go to standard error.

    \b
    Example:
      PARROT_API_KEY=$(parrot key create search --label "laptop of Ann")
    """
    from parrotserve.cli.console import standard_error
    from parrotserve.cli.tenants import opened

    with opened(settings) as store:
        identity, text = store.create_key(tenant, label=label, operator=operator)
    standard_error().print(f"Key {identity} of tenant {tenant}, shown this once; keep it safe:")
    print(text)


@takes_data
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="The key's id, as `parrot key list` shows it.")],
    settings: dict[str, Any],
) -> None:
    """Revoke a key. Running services refuse it from the next exchange on.

    \b
    Example:
      parrot key revoke k-3f9c2e7ab01d
    """
    from parrotserve.cli.console import standard_output
    from parrotserve.cli.tenants import opened

    with opened(settings) as store:
        revoked = store.revoke_key(key)
    standard_output().print(f"Revoked key {revoked.id} of tenant {revoked.tenant}.")


@takes_data
def list_(
    settings: dict[str, Any],
    tenant: Annotated[
        str | None, typer.Argument(metavar="TENANT", help="Only this tenant's.", show_default="all")
    ] = None,
) -> None:
    """List keys: ids, tenants and labels, never the keys themselves.

    \b
    Example:
      parrot key list search
    """
    import time

    from rich.table import Table

    from parrotserve.cli.console import show_table
    from parrotserve.cli.tenants import opened

    def day(moment: float | None) -> str:
        return "" if moment is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(moment))

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("key", "tenant", "label", "role", "created", "revoked"):
        table.add_column(column, overflow="fold")
    with opened(settings) as store:
        if tenant is not None:
            store.tenant(tenant)
        for key in store.keys(tenant):
            role = "operator" if key.operator else "tenant"
            table.add_row(key.id, key.tenant, key.label, role, day(key.created), day(key.revoked))
    whose = "" if tenant is None else f" of tenant {tenant!r}"
    show_table(table, f"There are no keys{whose}. Make one with: parrot key create {tenant or 'TENANT'}")
