"""`parrot serve`: the service over HTTP."""

from enum import StrEnum
from typing import Annotated, Any

import typer


class LogLevel(StrEnum):
    """How much is logged on standard error; never prompts."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _size(text: str) -> int:
    from parrotserve.config import parse_size

    try:
        return parse_size(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.") from error


_BY_ENGINE = "chosen by the engine"


Without = Annotated[
    str | None,
    typer.Option(
        metavar="SWITCHES", help="Optimisations to turn off, as prefix,groups; all for all.", show_default="none"
    ),
]


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.", show_default="127.0.0.1")] = None,
    port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0 takes a free one.", show_default="8000")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Name or path of a model; repeat for several, the first is the default.", show_default="smollm2-135m"
        ),
    ] = None,
    engines: Annotated[int | None, typer.Option(help="Engines for each model.", show_default="1")] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="What computes the engines' steps: auto, kernels or reference.", show_default="auto"),
    ] = None,
    kv_memory: Annotated[
        Any,
        typer.Option(parser=_size, metavar="SIZE", help="KV cache of each engine, as 512MiB.", show_default=_BY_ENGINE),
    ] = None,
    prefill_chunk: Annotated[
        int | None,
        typer.Option(help="Most prompt tokens that an engine reads in one step.", show_default=_BY_ENGINE),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of each engine.", show_default=_BY_ENGINE)] = None,
    without: Without = None,
    log_level: Annotated[LogLevel, typer.Option(help="What is logged on standard error.")] = LogLevel.WARNING,
) -> None:
    """Serve programs over HTTP, until Ctrl-C.

    Programs use the service with PARROT_URL set, or after `P.connect(url)`. Settings that are not given come from the
    environment: --kv-memory from PARROT_KV_MEMORY, and so on.

    \b
    Examples:
      parrot serve
      parrot serve --port 9000 --model smollm2-135m --model ./other.gguf
      PARROT_URL=http://127.0.0.1:8000 parrot run examples/hello.py
    """
    import logging

    from parrotserve.config import ServiceConfig, parse_names
    from parrotserve.embedded import PullBar
    from parrotserve.server.run import serve as run_server

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    config = ServiceConfig.load(
        host=host,
        port=port,
        models=tuple(model) if model else None,
        engines=engines,
        backend=backend,
        kv_memory=kv_memory,
        prefill_chunk=prefill_chunk,
        threads=threads,
        without=parse_names(without) if without else None,
    )
    with PullBar() as bar:
        run_server(config, progress=bar)
