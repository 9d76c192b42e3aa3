"""`parrot publish` and `parrot unpublish`: constant texts whose KV all tenants share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from parrotserve.cli.options import takes_data


@takes_data
def publish(
    settings: dict[str, Any],
    source: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="File with the text.", show_default="lists them")
    ] = None,
) -> None:
    """Publish a constant text, so that all tenants share its KV.

    Without FILE, list published texts. A request shares a published text that is exactly its system message, its
    first messages, or everything before its first placeholder. Any tenant can find out which texts are published, but
    nothing about what follows them. Running services pick up changes at once.

    \b
    Examples:
      parrot publish system_prompt.txt
      parrot publish
    """
    from rich.table import Table

    from parrotserve.cli.console import show_table, standard_output
    from parrotserve.cli.tenants import opened
    from parrotserve.errors import DeclarationError

    with opened(settings) as store:
        if source is not None:
            try:
                text = source.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise DeclarationError(f"{source} cannot be read: {why}.") from error
            standard_output().print(f"Published as {store.publish(text)}; all tenants share it now.")
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in ("id", "characters", "begins"):
            table.add_column(column, overflow="fold")
        for one in store.published():
            table.add_row(one.id, str(len(one.text)), " ".join(one.text.split())[:60])
    show_table(table, "No text is published. Publish one with: parrot publish FILE")


@takes_data
def unpublish(
    identity: Annotated[str, typer.Argument(metavar="ID", help="The text's id, as `parrot publish` shows it.")],
    settings: dict[str, Any],
) -> None:
    """Stop sharing a published text: new requests share it only within their own tenant.

    \b
    Example:
      parrot unpublish p-3f9c2e7ab01d
    """
    from parrotserve.cli.console import standard_output
    from parrotserve.cli.tenants import opened

    with opened(settings) as store:
        store.unpublish(identity)
    standard_output().print(f"{identity} is no longer published.")
