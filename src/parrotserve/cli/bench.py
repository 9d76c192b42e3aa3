"""`parrot bench`: benchmarks of applications, on Parrot with and without its optimisations and on other servers."""

from pathlib import Path
from typing import Annotated

import typer

_Workload = Annotated[
    str,
    typer.Argument(metavar="WORKLOAD", help="chain, map-reduce, copilot, gpts, agents, mixed, tools, apps, or all."),
]
_Sides = Annotated[
    str,
    typer.Option(
        metavar="SIDE,...",
        help="Sides to compare: on, off, capped, throughput, chat priority, chats alone, without prefix (or another "
        "switch), ablations, vllm, vllm-ngram, llamacpp, llamacpp-ngram.",
    ),
]
_Vllm = Annotated[
    str | None,
    typer.Option(
        metavar="URL[,GROUP]",
        help="A running vLLM server; add its process group to pause it while others are measured.",
    ),
]
_Llamacpp = Annotated[str | None, typer.Option(metavar="URL[,GROUP]", help="A running llama.cpp server.")]
_VllmNgram = Annotated[
    str | None, typer.Option(metavar="URL[,GROUP]", help="A running vLLM server with n-gram speculation.")
]
_LlamacppNgram = Annotated[
    str | None, typer.Option(metavar="URL[,GROUP]", help="A running llama.cpp server with n-gram speculation.")
]
_Seconds = Annotated[
    float | None,
    typer.Option(min=1, help="Time for this sitting: begin no trial that would not end within it; see --resume."),
]
_Resume = Annotated[
    bool,
    typer.Option(
        "--resume",
        help="Continue from the records in --into; retry failed trials, except those that took too long.",
    ),
]
_Limit = Annotated[float, typer.Option(min=1, help="Seconds after which a trial has failed.")]
_Into = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Record every trial in WORKLOAD.json there, and draw WORKLOAD.png."),
]


_Delay = Annotated[
    list[float] | None,
    typer.Option(min=0, help="Milliseconds added to every HTTP exchange; repeatable.", show_default="0 and 250"),
]


def bench(
    workload: _Workload,
    sides: _Sides = "on,off,capped",
    case: Annotated[list[str] | None, typer.Option(help="Only cases whose names contain this; repeatable.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small cases and one round, to see that all works.")] = False,
    rounds: Annotated[int | None, typer.Option(min=0, help="Trials of each side.", show_default="5; quick: 1")] = None,
    delay: _Delay = None,
    model: Annotated[str, typer.Option(help="Name or path of the model.")] = "default",
    kv_memory: Annotated[str, typer.Option(metavar="SIZE", help="KV cache of each engine.")] = "3GiB",
    cap: Annotated[int, typer.Option(min=1, help="Most sequences in a batch of the side `capped`.")] = 4,
    vllm: _Vllm = None,
    vllm_ngram: _VllmNgram = None,
    llamacpp: _Llamacpp = None,
    llamacpp_ngram: _LlamacppNgram = None,
    peer_model: Annotated[str, typer.Option(help="The model's name on peers.")] = "smollm2-135m",
    seed: Annotated[int, typer.Option(help="Seed for texts, lengths and arrival times.")] = 1,
    into: _Into = None,
    resume: _Resume = False,
    limit: _Limit = 900.0,
    seconds: _Seconds = None,
) -> None:
    """Benchmark applications on Parrot, with and without its optimisations, and on other servers.

    Every side runs the same work in turn; medians and ranges are printed. Exits with 1 if every trial of a side failed.

    \b
    Examples:
      parrot bench chain --quick
      parrot bench copilot --sides on,off,vllm --vllm http://127.0.0.1:8101
      parrot bench all --sides on,ablations --into results --resume --seconds 200
    """
    from parrotserve.bench.command import Options, run
    from parrotserve.cli.console import standard_error, standard_output

    if resume and into is None:
        raise typer.BadParameter("--resume goes on with what is recorded in a folder; name it by --into FOLDER.")
    if not run(
        Options(
            workload=workload,
            sides=[name.strip() for name in sides.split(",") if name.strip()],
            cases=case or (),
            quick=quick,
            rounds=rounds,
            delays=[each / 1000 for each in delay or (0.0, 250.0)],
            model=model,
            kv_memory=kv_memory,
            cap=cap,
            peers=_named(vllm, vllm_ngram, llamacpp, llamacpp_ngram),
            peer_model=peer_model,
            seed=seed,
            into=into,
            resume=resume,
            limit=limit,
            seconds=seconds,
        ),
        told=lambda line: standard_error().print(line, style="dim"),
        show=standard_output().print,
    ):
        raise typer.Exit(1)


def _named(*addresses: str | None) -> dict[str, str]:
    from parrotserve.bench.sides import PEERS

    return {name: address for name, address in zip(PEERS, addresses, strict=True) if address}
