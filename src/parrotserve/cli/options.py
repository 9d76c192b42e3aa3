"""Settings as options of a command, one for each field of `ServiceConfig`, or for each limit of a tenant."""

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from parrotserve.config import SETTINGS
from parrotserve.settings import NAMES, SWITCH, Kind, Setting
from parrotserve.tenancy.limits import LIMITS

FILE_OPTION = "--config"

Command = Callable[..., None]

_File = Annotated[
    Path | None,
    typer.Option(
        FILE_OPTION,
        metavar="FILE",
        help="TOML file of settings.",
        show_default="PARROT_CONFIG, else config.toml in the user's folder",
    ),
]


def takes_settings(command: Command) -> Command:
    """The command with an option for every setting of a service and one for the file of settings.

    The command gets their values in `settings`, as keyword arguments for `ServiceConfig.load`.
    """
    return _with_options(command, "settings", SETTINGS, file=True)


def takes_data(command: Command) -> Command:
    """The same, with options for the data folder and the file of settings only."""
    return _with_options(command, "settings", {"data": SETTINGS["data"]}, file=True)


def takes_limits(command: Command) -> Command:
    """The command with an option for every limit of a tenant. It gets them in `limits`, for `Limits.changed`."""
    return _with_options(command, "limits", LIMITS)


def _with_options(command: Command, name: str, settings: Mapping[str, Setting], *, file: bool = False) -> Command:
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.name != name]
    added = [inspect.Parameter("file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_File)] if file else []
    added += map(_parameter, settings.values())
    lists = [setting.name for setting in settings.values() if setting.kind is NAMES]

    def with_options(*arguments: Any, **options: Any) -> None:
        given = {parameter.name: options.pop(parameter.name) for parameter in added}
        for each in lists:
            given[each] = tuple(part for text in given[each] or () for part in NAMES.parse(text)) or None
        command(*arguments, **options, **{name: given})

    with_options.__name__ = command.__name__
    with_options.__doc__ = command.__doc__
    parameters = [*own, *added]
    with_options.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore[reportFunctionMemberAccess]
    with_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_options


def _parameter(setting: Setting) -> inspect.Parameter:
    default = setting.shown(setting.default)
    if setting.kind is SWITCH:
        annotation = bool | None
        flags = f"{setting.flag}/--no-{setting.flag.removeprefix('--')}"
        option = typer.Option(flags, help=setting.told, show_default=default, rich_help_panel=setting.group.value)
    else:
        several = setting.kind is NAMES
        annotation = list[str] | None if several else Any
        option = typer.Option(
            setting.flag,
            help=setting.told + (" May be repeated." if several else ""),
            metavar=setting.kind.metavar,
            parser=None if several else _parser(setting.kind),
            show_default=default,
            rich_help_panel=setting.group.value,
        )
    annotated = Annotated[annotation, option]
    return inspect.Parameter(setting.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotated)


def _parser(kind: Kind) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        try:
            return kind.parse(text)
        except ValueError as error:
            raise typer.BadParameter(f"{error}.") from error

    return parse
