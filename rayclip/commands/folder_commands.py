"""The command-line interface of the commands that read an output folder."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rayclip.cli_options import takes_settings
from rayclip.console import say_to_user
from rayclip.settings import Settings

PROBLEMS_FOUND = 1

Output = Annotated[
    str, typer.Argument(help="An output_path, or a model's folder in it: a path or an fsspec URL.")
]


@takes_settings("video_paths", "file_with_video_paths", "path_column", "storage_options")
def status(
    output: Output,
    settings: Settings,
    verify: Annotated[
        bool, typer.Option("--verify", help="Open every file and name the damaged ones.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a JSON object on a line for each model.")
    ] = False,
) -> None:
    """Show the state of an output folder, also during a run.

    Shows done and failed videos, rate and settings. If the inputs of the run are
    given, also shows how many remain.

    Exit status: 0 success, 1 --verify found damaged files, 2 usage error.
    """
    from rayclip.commands.status import show_status

    has_list = bool(settings.video_paths) or settings.file_with_video_paths is not None
    if show_status(output, settings, has_list, verify, sys.stdout, as_json):
        raise typer.Exit(PROBLEMS_FOUND)


@takes_settings("storage_options")
def failures(output: Output, settings: Settings) -> None:
    """Print the failed inputs of a run, one per line, for example to retry them.

    rayclip failures OUTPUT | rayclip extract --file-with-video-paths - ...

    Exit status: 0 success, 1 some inputs do not fit on a line, 2 usage error.
    """
    from rayclip.commands.failed_inputs import write_failed

    skipped = write_failed(output, settings.storage_options, sys.stdout.buffer)
    for video in skipped:
        say_to_user(f"rayclip: {video!r} does not fit on a line: pass it as an argument.")
    if skipped:
        raise typer.Exit(PROBLEMS_FOUND)


@takes_settings("storage_options")
def compact(
    output: Output,
    settings: Settings,
    model_name: Annotated[
        str | None, typer.Option(help="Only join the shards of this model.", metavar="NAME")
    ] = None,
) -> None:
    """Join the small shards of save_parquet into large ones and drop duplicate rows.

    Exit status: 0 success, 2 usage error, 3 stopped early (nothing is lost).
    """
    from rayclip.commands.compact import compact as join

    join(output, model_name, settings.storage_options, print)
