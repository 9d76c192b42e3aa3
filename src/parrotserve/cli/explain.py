"""`parrot explain`: why a session's requests run where and when they do."""

from typing import Annotated

import typer

Url = Annotated[str | None, typer.Option(help="Ask the service at this URL.", show_default="PARROT_URL")]


_LISTED = "`parrot sessions` lists those that live."


def explain(
    session: Annotated[
        str | None,
        typer.Argument(metavar="SESSION", show_default=False, help="A session's id, as `parrot sessions` lists it."),
    ] = None,
    url: Url = None,
    json: Annotated[bool, typer.Option("--json", help="Print all that is known, as JSON.")] = False,
) -> None:
    """Say why a session's requests run where and when they do.

    For each request: what it is scheduled for and why, how much of its prompt was in the KV cache, which engine runs
    it and why no other, how long it waited and ran. Asks the service at PARROT_URL. For a program of your own, use
    `parrot run --explain`.

    \b
    Examples:
      PARROT_URL=http://127.0.0.1:8000 parrot explain s-0123456789abcdef
      parrot explain s-0123456789abcdef --url http://127.0.0.1:8000 --json
    """
    import asyncio

    from parrotserve.cli.console import harmless, standard_output
    from parrotserve.cli.service import service_at
    from parrotserve.errors import UnknownObject
    from parrotserve.ids import SessionId
    from parrotserve.protocol import SessionView
    from parrotserve.sdk.explain import Explanation

    if session is None:
        raise typer.BadParameter(f"say which session: {_LISTED}")
    transport = service_at(url)

    async def look() -> SessionView:
        await transport.open()
        try:
            return await transport.session_view(SessionId(session))
        except UnknownObject as error:
            raise UnknownObject(f"{error.message} {_LISTED}", **error.details) from error
        finally:
            await transport.close()

    told = Explanation(asyncio.run(look()))
    standard_output().out(told.json() if json else harmless(str(told)).rstrip("\n"))
