"""The command-line interface of the commands that read an output folder."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from rayclip.cli_options import takes_settings
from rayclip.console import say_to_user
from rayclip.settings import Settings

PROBLEMS_FOUND = 1

Output = Annotated[
    str, typer.Argument(help="An output_path, or a model's folder in it: a path or an fsspec URL.")
]


@takes_settings(
    "video_paths",
    "file_with_video_paths",
    "path_column",
    "ignore_ranges",
    "frames_folders",
    "storage_options",
)
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
        prefix = ", after ./" if video.startswith("~") else ""
        say_to_user(f"rayclip: {video!r} does not fit on a line: pass it as an argument{prefix}.")
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


@takes_settings("storage_options")
def export(
    output: Output,
    target: Annotated[
        str, typer.Argument(help="A folder for the export: a path or an fsspec URL.")
    ],
    settings: Settings,
    format_name: Annotated[
        str,
        typer.Option("--format", help="npz, hdf5, frames-parquet or webdataset.", metavar="WORD"),
    ],
    model_name: Annotated[
        str | None, typer.Option(help="The model, if there are several.", metavar="NAME")
    ] = None,
    normalize: Annotated[
        bool, typer.Option("--normalize", help="Scale each feature to length 1, after pooling.")
    ] = False,
    window: Annotated[
        int | None,
        typer.Option(help="Pool this many consecutive features into one.", metavar="N"),
    ] = None,
    stride: Annotated[
        int | None,
        typer.Option(
            help="Features from the start of a window to the next; by default, the window.",
            metavar="M",
        ),
    ] = None,
    pool: Annotated[
        str | None,
        typer.Option(
            help="mean (default) or max of a window; without a window, of each video.",
            metavar="WORD",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(help="float32 or float16; by default, that of the features.", metavar="WORD"),
    ] = None,
    naming: Annotated[
        str,
        typer.Option(
            help="stem or path: how rows of save_parquet are named in npz, hdf5 and webdataset.",
            metavar="WORD",
        ),
    ] = "stem",
) -> None:
    """Write finished features in a format that other programs read.

    The same command again goes on where it was killed, adds what is new and
    replaces what was made again.

    Exit status: 0 success, 1 damaged features, 2 usage error, 3 stopped early
    (what is exported is kept).
    """
    from rayclip.commands.export import export_and_say
    from rayclip.export.options import ExportOptions

    options: dict[str, Any] = {
        "format": format_name,
        "normalize": normalize,
        "window": window,
        "stride": stride,
        "pool": pool,
        "dtype": dtype,
        "naming": naming,
    }
    export_and_say(output, target, ExportOptions(**options), model_name, settings.storage_options)
