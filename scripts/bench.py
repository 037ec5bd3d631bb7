"""Measure what rayclip costs, beside other ways to the same end, interleaved in one run.

    python scripts/bench.py decode            # on videos that it makes: some twenty minutes
    python scripts/bench.py decode my.mp4 --extraction-fps 2
    python scripts/bench.py segments my.mp4   # a long video, decoded in parts side by side

Numbers are of the machine and the moment; ratios within one run are what to compare.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import bench_decode
import bench_segments
import typer
from bench_videos import make_videos

from rayclip.errors import UsageError

app = typer.Typer(
    help="Measure what rayclip costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def decode(
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Local videos; by default those that it makes.")
    ] = None,
    extraction_fps: Annotated[
        list[str], typer.Option(help="Frames per second, or native; can be given again.")
    ] = ["1", "2", "5"],  # noqa: B006  # typer's way to give a list a default
    rounds: Annotated[int, typer.Option(help="How often each way is measured.")] = 3,
    make: Annotated[
        bool, typer.Option("--make", help="Add the made videos to those that are given.")
    ] = False,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keep the made videos here, and take those that are here already."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Save every number here, as JSON.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Draw the numbers here; the suffix says how: .svg, .png.")
    ] = None,
) -> None:
    """CPU milliseconds for a feature, from the video to the square that the model is given."""
    with _usage_errors(), _made_videos_folder(folder) as made:
        rates = [bench_decode.rate_named(name) for name in extraction_fps]
        if rounds < 1:
            raise UsageError(f"--rounds must be at least 1, not {rounds}.")
        for file in (json_file, picture):
            if file is not None and not file.parent.is_dir():
                raise UsageError(f"There is no folder {file.parent} for {file.name}.")
        if picture is not None and find_spec("matplotlib") is None:
            raise UsageError("--picture needs matplotlib: pip install 'rayclip[bench]'.")
        paths = list(videos or ())
        described = [bench_decode.describe(path) for path in paths]
        if make or not paths:
            _say(f"making videos in {made}")
            described += map(bench_decode.describe, make_videos(made))

        rows = []
        for row in bench_decode.measured(described, rates, rounds):
            rows.append(row)
            _say(f"measured {row.name}")
        typer.echo(bench_decode.report(rows, rounds))
        if json_file is not None:
            json_file.write_text(json.dumps(bench_decode.as_json(rows, rounds), indent=1))
        if picture is not None:
            bench_decode.draw(rows, picture)


@app.command()
def segments(
    video: Annotated[Path, typer.Argument(help="A local video with many keyframes.")],
    count: Annotated[
        list[int], typer.Option("--segments", help="How many; can be given again.")
    ] = [1, 2, 4],  # noqa: B006
    extraction_fps: Annotated[
        str, typer.Option(help="Frames per second, or native.")
    ] = bench_decode.NATIVE,
    rounds: Annotated[int, typer.Option(help="How often each number is measured.")] = 3,
) -> None:
    """Wall time of decoding one video in segments, each in a process of its own."""
    with _usage_errors():
        fps = bench_decode.rate_named(extraction_fps)
        bench_decode.describe(video)
        results = bench_segments.measured(video, fps, count, rounds)
        typer.echo(bench_segments.report(video, fps, results))


@contextmanager
def _made_videos_folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


@contextmanager
def _usage_errors() -> Iterator[None]:
    try:
        yield
    except UsageError as error:
        _say(str(error))
        raise typer.Exit(error.exit_status) from None


def _say(sentence: str) -> None:
    """Tell people, apart from the table."""
    typer.echo(f"bench: {sentence}", err=True)


if __name__ == "__main__":
    app()
