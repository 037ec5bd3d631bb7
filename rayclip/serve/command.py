"""The command-line interface of the page."""

from __future__ import annotations

from typing import Annotated

import typer

from rayclip.cli_options import takes_settings
from rayclip.commands.search_commands import Output, Weights
from rayclip.serve.listening import DEFAULT_PORT
from rayclip.settings import Settings


@takes_settings("storage_options")
def serve(
    output: Output,
    settings: Settings,
    port: Annotated[
        int | None,
        typer.Option(help=f"The port; by default {DEFAULT_PORT} or a free one.", metavar="N"),
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on.", metavar="ADDRESS")
    ] = "127.0.0.1",
    videos: Annotated[
        list[str] | None,
        typer.Option(
            help="A folder whose videos may be shown; can be repeated. If none is given, asks.",
            metavar="ROOT",
        ),
    ] = None,
    weights: Weights = None,
) -> None:
    """Show a page in the browser that finds moments in a run and plays them.

    Needs pip install 'rayclip\\[serve]'. Only whoever has the printed address can
    open the page, and only from this machine, unless --host says otherwise.

    Exit status: 2 usage error, 130 interrupted, 143 terminated.
    """
    from rayclip.serve.server import ServeRequest, run_server

    request = ServeRequest(output, host, port, videos or [], weights)
    run_server(request, settings.storage_options, typer.confirm)
