"""The words of the commands that read an output folder; each is a call."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rayclip.messages import say_to_user
from rayclip.settings import Settings, storage_options_of
from rayclip.words import names_of

NOT_ALL_WELL = 1

Output = Annotated[
    str, typer.Argument(help="An output_path, or a model's folder in it: a path or an fsspec URL.")
]
StorageOptions = Annotated[
    str | None, typer.Option(*names_of("storage_options"), help="For fsspec, as a JSON object.")
]


def status(
    output: Output,
    video_paths: Annotated[
        list[str] | None, typer.Argument(help="Inputs of the run, to tell how many are left.")
    ] = None,
    file_with_video_paths: Annotated[
        str | None,
        typer.Option(
            *names_of("file_with_video_paths"), help="The run's list, to tell how many are left."
        ),
    ] = None,
    path_column: Annotated[
        str, typer.Option(*names_of("path_column"), help="That list's column of paths.")
    ] = "path",
    verify: Annotated[
        bool, typer.Option("--verify", help="Open every file and name those that are damaged.")
    ] = False,
    storage_options: StorageOptions = None,
) -> None:
    """Say what an output folder holds, of a running job too.

    Done, failed by code, left of the list if it is given, rate and settings.

    Exit status: 0 read, 1 --verify found damaged files, 2 the command was wrong.
    """
    from rayclip.commands.status import show_status

    settings = Settings(
        video_paths=tuple(video_paths or ()),
        file_with_video_paths=file_with_video_paths,
        path_column=path_column,
        storage_options=storage_options_of(storage_options),
    )
    has_list = bool(video_paths) or file_with_video_paths is not None
    if show_status(output, settings, has_list, verify, sys.stdout):
        raise typer.Exit(NOT_ALL_WELL)


def failures(output: Output, storage_options: StorageOptions = None) -> None:
    """Print the failed inputs of a run, one per line, to be tried again.

    rayclip failures OUTPUT | rayclip extract --file-with-video-paths - ...

    Exit status: 0 all are printed, 1 some cannot stand in a list, 2 the command was wrong.
    """
    from rayclip.commands.failed_inputs import write_failed

    left_out = write_failed(output, storage_options_of(storage_options), sys.stdout.buffer)
    for video in left_out:
        say_to_user(f"rayclip: no line of a list can hold {video!r}: give it as an argument.")
    if left_out:
        raise typer.Exit(NOT_ALL_WELL)


def compact(
    output: Output,
    model_name: Annotated[
        str | None,
        typer.Option(*names_of("model_name"), help="Join the shards of this model only."),
    ] = None,
    storage_options: StorageOptions = None,
) -> None:
    """Join the small shards that save_parquet made into large ones, each video once.

    Exit status: 0 done, 2 the command was wrong, 3 it stopped early, and nothing is lost.
    """
    from rayclip.commands.compact import compact as join

    join(output, model_name, storage_options_of(storage_options), print)
