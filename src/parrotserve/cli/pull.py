"""`parrot pull`: fetch a model into the user's cache."""

from typing import Annotated

import typer


def pull(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a model, as listed by `parrot models`.")
    ] = "smollm2-135m",
) -> None:
    """Fetch a model into the cache, unless it is there. `run`, `chat` and `serve` do it by themselves.

    A file that is there is checked, and fetched again if it is damaged.

    \b
    Examples:
      parrot pull
      parrot pull smollm2-135m
    """
    from parrotserve.cli.console import standard_output
    from parrotserve.embedded import PullBar
    from parrotserve.models.registry import pull as fetch

    with PullBar() as bar:
        path = fetch(name, progress=bar)
    standard_output().print(f"{name} is in {path}")
