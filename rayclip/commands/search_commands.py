"""The command-line interface of the commands that search an output folder and show it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from rayclip.cli_options import takes_settings
from rayclip.console import say_to_user
from rayclip.settings import Settings

SOME_NOT_CUT = 1

Output = Annotated[
    str, typer.Argument(help="An output_path, or a model's folder in it: a path or an fsspec URL.")
]
ModelName = Annotated[
    str | None,
    typer.Option(help="The model, if the folder has features of several.", metavar="NAME"),
]
Weights = Annotated[
    str | None,
    typer.Option(help="The checkpoint of the run, if its model is custom.", metavar="PATH"),
]
Videos = Annotated[
    str | None,
    typer.Option(
        help="The folder of the videos, if they were moved: a path or an fsspec URL.",
        metavar="ROOT",
    ),
]


@takes_settings("storage_options")
def search(
    output: Output,
    settings: Settings,
    texts: Annotated[
        list[str] | None, typer.Argument(help="What to look for, such as 'a dog on a beach'.")
    ] = None,
    image: Annotated[
        list[str] | None,
        typer.Option(help="A picture to look for; can be repeated.", metavar="FILE"),
    ] = None,
    top: Annotated[int, typer.Option(help="How many moments for each query.", metavar="N")] = 10,
    model_name: ModelName = None,
    weights: Weights = None,
    videos: Videos = None,
    cut: Annotated[
        str | None,
        typer.Option(help="Also write each moment as a clip to this folder.", metavar="FOLDER"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """Find the moments that fit texts or pictures, in the features of a run.

    Several texts or pictures are compared side by side. It works at once, also
    during a run, and without an index.

    Exit status: 0 success, 1 a moment could not be cut, 2 usage error.
    """
    from rayclip.commands.search import SearchRequest, cut_answer, write_answer
    from rayclip.commands.search import search as find

    request = SearchRequest(output, texts or [], image or [], top, model_name, weights, videos)
    answer = find(request, settings.storage_options)
    write_answer(answer, as_json, sys.stdout, _note)
    if cut is not None and cut_answer(answer, cut, settings.storage_options, _note):
        raise typer.Exit(SOME_NOT_CUT)


def _note(text: str) -> None:
    say_to_user(f"rayclip: {text}")


@takes_settings("storage_options")
def report(
    output: Output,
    settings: Settings,
    to: Annotated[str, typer.Option(help="The file to write.", metavar="FILE")] = "report.html",
    texts: Annotated[
        list[str] | None,
        typer.Option(
            help="A text, or a list in brackets, whose curves and best moments are shown.",
            metavar="TEXT",
        ),
    ] = None,
    model_name: ModelName = None,
    weights: Weights = None,
    videos: Videos = None,
) -> None:
    """Write one HTML file that shows a run: videos, failures, and curves of texts.

    It needs no other file and no network.

    Exit status: 0 success, 2 usage error, 3 the file cannot be written.
    """
    from rayclip.commands.report import ReportRequest, write_report
    from rayclip.option_values import parse_texts

    request = ReportRequest(output, parse_texts(texts or []), to, model_name, weights, videos)
    write_report(request, settings.storage_options)
    print(f"Wrote {to}. Open it in a browser.")


@takes_settings("storage_options")
def index(output: Output, settings: Settings, model_name: ModelName = None) -> None:
    """Make or update an index of a run, for searches of millions of frames.

    Needs pip install 'rayclip\\[index]'. search uses it, and reads what is newer.

    Exit status: 0 success, 2 usage error, 3 the index cannot be written.
    """
    from rayclip.commands.index import write_index

    write_index(output, model_name, settings.storage_options, _note)
