"""The words of the commands that read an output folder; each is a call."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rayclip.cli_options import takes_settings
from rayclip.console import say_to_user
from rayclip.settings import Settings

NOT_ALL_WELL = 1

Output = Annotated[
    str, typer.Argument(help="An output_path, or a model's folder in it: a path or an fsspec URL.")
]


@takes_settings("video_paths", "file_with_video_paths", "path_column", "storage_options")
def status(
    output: Output,
    settings: Settings,
    verify: Annotated[
        bool, typer.Option("--verify", help="Open every file and name those that are damaged.")
    ] = False,
) -> None:
    """Say what an output folder holds, of a running job too.

    Done, failed by code, rate and settings. If the inputs of the run are given,
    also how many of them are left.

    Exit status: 0 read, 1 --verify found damaged files, 2 the command was wrong.
    """
    from rayclip.commands.status import show_status

    has_list = bool(settings.video_paths) or settings.file_with_video_paths is not None
    if show_status(output, settings, has_list, verify, sys.stdout):
        raise typer.Exit(NOT_ALL_WELL)


@takes_settings("storage_options")
def failures(output: Output, settings: Settings) -> None:
    """Print the failed inputs of a run, one per line, to be tried again.

    rayclip failures OUTPUT | rayclip extract --file-with-video-paths - ...

    Exit status: 0 all are printed, 1 some cannot stand in a list, 2 the command was wrong.
    """
    from rayclip.commands.failed_inputs import write_failed

    left_out = write_failed(output, settings.storage_options, sys.stdout.buffer)
    for video in left_out:
        say_to_user(f"rayclip: no line of a list can hold {video!r}: give it as an argument.")
    if left_out:
        raise typer.Exit(NOT_ALL_WELL)


@takes_settings("storage_options")
def compact(
    output: Output,
    settings: Settings,
    model_name: Annotated[
        str | None, typer.Option(help="Join the shards of this model only.", metavar="NAME")
    ] = None,
) -> None:
    """Join the small shards that save_parquet made into large ones, each video once.

    Exit status: 0 done, 2 the command was wrong, 3 it stopped early, and nothing is lost.
    """
    from rayclip.commands.compact import compact as join

    join(output, model_name, settings.storage_options, print)
