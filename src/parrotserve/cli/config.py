"""`parrot config`: the settings in force, and where each comes from."""

from typing import Any

from parrotserve.cli.options import takes_settings


@takes_settings
def config(settings: dict[str, Any]) -> None:
    """Show the settings that `parrot serve` would use, and where each comes from.

    The options are those of `parrot serve`. A flag wins over the environment, which wins over the file, which wins
    over the default.

    \b
    Example:
      PARROT_ENGINES=2 parrot config --port 9000
    """
    from rich.table import Table

    from parrotserve.cli.console import standard_output
    from parrotserve.config import SETTINGS, effective

    config, origins = effective(**settings)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    for one in SETTINGS.values():
        # A default that depends on the machine is described in words; but for the data folder the path is shown, since
        # that is where keys are looked for.
        shown = str(config.data_folder) if one.name == "data" else one.shown(getattr(config, one.name))
        table.add_row(one.name, shown, origins[one.name])
    standard_output().print(table)
