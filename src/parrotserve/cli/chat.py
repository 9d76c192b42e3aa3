"""`parrot chat`: talk to the model in the terminal."""

import contextlib
import importlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from parrotserve.cli.console import CUT, complain, harmless, standard_error
from parrotserve.errors import ParrotError
from parrotserve.sampling import FinishReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from parrotserve.sdk.chat import Chat

WELCOME = "Type a message and press Enter. /reset starts a new conversation, /exit (or Ctrl-D) leaves."
LEAVING = "/exit or Ctrl-D leaves."
RESET = "A new conversation."


def chat(
    url: Annotated[
        str | None, typer.Option(help="Talk to the service at this URL.", show_default="PARROT_URL, else embedded")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Name or path of the model.", show_default="the default model")
    ] = None,
    system: Annotated[str | None, typer.Option(help="System message.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="At most this many tokens in an answer.")] = 512,
    temperature: Annotated[
        float, typer.Option(min=0.0, help="0 takes the likeliest token; higher is more random.")
    ] = 0.7,
    seed: Annotated[int | None, typer.Option(min=0, help="Fixes the randomness.", show_default="a new one")] = None,
) -> None:
    """Talk to the model. Answers appear as it writes them; Ctrl-C stops an answer, or clears the input line.

    Each turn reuses the KV cache of the turns before. Messages may come from a pipe, one per line; the command then
    writes only answers to standard output, exits with 1 if an answer failed, and Ctrl-C ends it.

    \b
    Examples:
      parrot chat
      parrot chat --system "Answer in one sentence." --temperature 0
      echo "Who are you?" | parrot chat --temperature 0
    """
    from parrotserve.cli.console import standard_output
    from parrotserve.cli.service import service
    from parrotserve.sdk.chat import Chat
    from parrotserve.sdk.connection import use
    from parrotserve.sdk.loop import background

    remote = bool(url or os.environ.get("PARROT_URL"))

    def begin() -> "Chat":
        return Chat(
            system=system,
            model=model if remote else None,
            max_tokens=max_tokens,
            temperature=temperature,
            seed=seed,
        )

    console = standard_output()
    with use(service(url, model)) as connection:
        if _on_terminal() and console.is_terminal:
            console.print("Starting ...", style="dim", end="\r")
        background().call(connection.opened())
        failed = _converse(begin, console)
    if failed and not _on_terminal():
        raise typer.Exit(1)


def _on_terminal() -> bool:
    """Whether a person types the messages, who sees what goes wrong, rather than a pipe."""
    return sys.stdin.isatty()


def _converse(begin: "Callable[[], Chat]", console: "Console") -> bool:
    """Answer messages until there are no more. Returns whether an answer failed."""
    if _on_terminal():
        console.print(WELCOME, style="dim")
    talk, failed = begin(), False
    while (text := _read(console)) is not None:
        if text == "/reset":
            talk = begin()
            if _on_terminal():
                console.print(RESET, style="dim")
        elif text.startswith("/"):
            _remark(f"There is no command {text}. {WELCOME}", console)
        elif text:
            failed = not _answer(talk, text, console) or failed
    return failed


def _read(console: "Console") -> str | None:
    """What the user typed; None to leave."""
    with contextlib.suppress(ImportError):
        importlib.import_module("readline")  # with it, `input` edits lines and keeps a history
    while True:
        try:
            text = input("> " if _on_terminal() else "").strip()
        except EOFError:
            if _on_terminal():
                print()
            return None
        except KeyboardInterrupt:
            if not _on_terminal():
                raise
            console.print(f"\n{LEAVING}", style="dim")
            continue
        return None if text in ("/exit", "/quit") else text


def _remark(text: str, console: "Console") -> None:
    """Print something that is not an answer: after the answer for a person, on standard error for a script."""
    (console if _on_terminal() else standard_error()).print(text, style="yellow")


def _answer(talk: "Chat", text: str, console: "Console") -> bool:
    """Stream one reply. Returns False if it failed. A reply that failed, or that Ctrl-C stopped, is left out of the
    conversation that follows."""
    reply, begun = talk.say(text), False
    try:
        try:
            for piece in reply.stream():
                begun = True
                console.out(harmless(piece), end="", highlight=False)
            cut = reply.finish_reason is FinishReason.LENGTH
            if not (cut and _on_terminal()):
                console.print()
            if cut:
                _remark(f" ({CUT})" if _on_terminal() else f"({CUT})", console)
        except KeyboardInterrupt:
            if not _on_terminal():
                raise
            console.print(" (stopped)", style="yellow")
            reply.cancel()
    except ParrotError as error:
        if begun:
            console.print()
        complain(error.message)
        return False
    return True
