"""The command `parrot`, made of its commands. They import what they need when they run, so that `--help` is quick."""

from typing import Annotated

import typer

from parrotserve.cli import key, tenant
from parrotserve.cli.bench import bench
from parrotserve.cli.chat import chat
from parrotserve.cli.config import config
from parrotserve.cli.console import Command, guarded
from parrotserve.cli.doctor import doctor
from parrotserve.cli.explain import explain
from parrotserve.cli.models import models
from parrotserve.cli.publish import publish, unpublish
from parrotserve.cli.pull import pull
from parrotserve.cli.run import run
from parrotserve.cli.serve import serve
from parrotserve.cli.sessions import sessions
from parrotserve.cli.usage import usage
from parrotserve.cli.version import version, version_line

app = typer.Typer(
    name="parrot",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_PROGRAMS, _SERVICES, _MODELS, _MACHINE = "Programs", "Services and their tenants", "Models", "This machine"


def _group(name: str, about: str, **commands: Command) -> None:
    group = typer.Typer(name=name, help=about, no_args_is_help=True)
    for each, command in commands.items():
        group.command(each)(guarded(command))
    app.add_typer(group, rich_help_panel=_SERVICES)


for panel, commands in {
    _PROGRAMS: (run, chat, sessions, explain),
    _SERVICES: (serve, config, usage, publish, unpublish),
    _MODELS: (models, pull),
    _MACHINE: (doctor, bench, version),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(guarded(command))
_group(
    "tenant",
    "Make tenants, list them, and set what each may use.",
    create=tenant.create,
    list=tenant.list_,
    limits=tenant.limits,
)
_group("key", "Make, list and revoke API keys of tenants.", create=key.create, list=key.list_, revoke=key.revoke)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


@app.callback()
def parrot(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Serve LLM applications: programs whose prompts feed one another.

    \b
    Start here:
      parrot run examples/hello.py   run a program and see every output live
      parrot chat                    talk to the model
      parrot serve                   serve many programs over HTTP
    """
