"""Measure what rayclip costs, beside other ways to the same end, interleaved in one run.

    python scripts/benchmarks/bench.py decode           # on generated videos; about 20 minutes
    python scripts/benchmarks/bench.py decode my.mp4 --extraction-fps 2
    python scripts/benchmarks/bench.py segments my.mp4  # a long video, decoded in parallel
    python scripts/benchmarks/bench.py encode           # the model, and rayclip's overhead
    python scripts/benchmarks/bench.py pipeline         # rayclip extract and its parts
    python scripts/benchmarks/bench.py lists            # a long list, before any video is read
    python scripts/benchmarks/bench.py cluster          # many simulated nodes

Numbers are of the machine and the moment; ratios within one run are what to compare.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, TypeVar

import typer

from rayclip.errors import RayclipError, UsageError
from rayclip.settings import Precision

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

import bench_decode
import bench_segments
from bench_videos import make_videos

T = TypeVar("T")
ModelOption = Annotated[str, typer.Option(help="Random weights of ViT-B/32 or ViT-L/14; or demo.")]
BatchSizeOption = Annotated[
    int | None, typer.Option(min=1, help="Frames per forward pass; by default as rayclip.")
]
PrecisionOption = Annotated[
    Precision, typer.Option(help="What rayclip computes in; the reference keeps to its own.")
]
WaysOption = Annotated[
    list[str] | None, typer.Option("--way", help="Only this row; can be given again.")
]
SecondsOption = Annotated[float, typer.Option(help="How long the encoder alone is fed.")]
RoundsOption = Annotated[int, typer.Option(min=1, help="How often everything is measured.")]

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
    with _told_errors(), _made_videos_folder(folder) as made:
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
    with _told_errors():
        fps = bench_decode.rate_named(extraction_fps)
        bench_decode.describe(video)
        results = bench_segments.measured(video, fps, count, rounds)
        typer.echo(bench_segments.report(video, fps, results))


@app.command()
def encode(
    model: ModelOption = "ViT-B/32",
    batch_size: BatchSizeOption = None,
    precision: PrecisionOption = "auto",
    way: WaysOption = None,
    seconds: SecondsOption = 10.0,
    rounds: RoundsOption = 5,
) -> None:
    """Speed and CPU time of encoding alone: the model, the batches, the actor on Ray."""
    import bench_encode

    with _told_errors(), TemporaryDirectory() as folder:
        ways = _chosen(way, list(bench_encode.WAYS))
        named = bench_encode.model_named(model, Path(folder))
        job = bench_encode.job_of(named, batch_size, precision, seconds)
        measured = _told(bench_encode.measured(job, ways, rounds))
        typer.echo(bench_encode.report(job, measured))


@app.command()
def pipeline(
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Local videos; by default those that it makes.")
    ] = None,
    clips: Annotated[int, typer.Option(min=2, help="Videos of a run: those given in turn.")] = 40,
    extraction_fps: Annotated[str, typer.Option(help="Frames per second, or native.")] = "1",
    synthetic_decode: Annotated[
        bool, typer.Option("--synthetic-decode", help="Ready squares: the encoder is what waits.")
    ] = False,
    clip_frames: Annotated[
        int, typer.Option(min=1, help="Of each clip, with --synthetic-decode.")
    ] = 24,
    fake_encoder: Annotated[
        float | None,
        typer.Option(metavar="MICROSECONDS", help="An encoder that sleeps so long for a frame."),
    ] = None,
    model: ModelOption = "ViT-B/32",
    batch_size: BatchSizeOption = None,
    precision: PrecisionOption = "auto",
    way: WaysOption = None,
    seconds: SecondsOption = 10.0,
    rounds: RoundsOption = 5,
    folder: Annotated[
        Path | None,
        typer.Option(help="Keep the made videos here, and take those that are here already."),
    ] = None,
) -> None:
    """Speed and CPU time of rayclip extract, of its parts alone, and of the reference's way."""
    import bench_encode
    import bench_pipeline

    with (
        _told_errors(),
        _made_videos_folder(folder) as made,
        TemporaryDirectory() as temporary,
    ):
        rate = bench_decode.rate_named(extraction_fps)
        named = bench_encode.model_named(model, Path(temporary))
        encode_job = bench_encode.job_of(named, batch_size, precision, seconds)
        if synthetic_decode:
            sources = [Path("synthetic.mp4")]
        elif videos:
            sources = [bench_decode.describe(path).path for path in videos]
        else:
            _say(f"making videos in {made}")
            sources = make_videos(made)
        job = bench_pipeline.PipelineJob(
            encode_job,
            named,
            bench_pipeline.clips_of(sources, clips, Path(temporary, "clips")),
            rate,
            clip_frames if synthetic_decode else None,
            fake_encoder,
        )
        ways = _chosen(way, job.ways)
        if bench_pipeline.REFERENCE in ways and find_spec("cv2") is None:
            raise UsageError(
                "The reference's way needs OpenCV: pip install 'rayclip[bench]', or name the other "
                "rows with --way."
            )
        fill = bench_pipeline.batch_fill(job) if bench_pipeline.RAYCLIP in ways else None
        measured = _told(bench_pipeline.rounds_of(job, ways, rounds))
        typer.echo(bench_pipeline.report(job, measured, fill))


@app.command()
def lists(
    videos: Annotated[int, typer.Option(min=1, help="Of the list.")] = 1_000_000,
    done: Annotated[int, typer.Option(min=0, help="Of these, how many are done.")] = 100_000,
    suffix: Annotated[
        str, typer.Option(help="Of the list: .txt, .csv, .tsv, .jsonl, .parquet.")
    ] = ".txt",
    real: Annotated[
        bool, typer.Option("--real", help="Write three files for each that is done, and list them.")
    ] = False,
    extra_columns: Annotated[
        bool, typer.Option("--carried", help="Three columns beside the paths, carried along.")
    ] = False,
    results: Annotated[
        int, typer.Option(min=0, help="Videos of a real run on Ray, whose tasks cost nothing.")
    ] = 0,
) -> None:
    """Time and memory of the process in which a long list is given."""
    import bench_lists

    with _told_errors():
        job = bench_lists.Lists(videos, done, real, suffix, extra_columns, results)
        typer.echo(bench_lists.report(job, bench_lists.measured(job)))


@app.command()
def cluster(
    nodes: Annotated[list[int], typer.Option(min=1, help="How many; can be given again.")] = [8],  # noqa: B006
    videos: Annotated[int, typer.Option(min=20, help="Of a run, for each node.")] = 2500,
    clip_frames: Annotated[int, typer.Option(min=1, help="Of each video.")] = 8,
    clips: Annotated[
        Path | None, typer.Option(help="Decode the clips of this folder, in turn, instead.")
    ] = None,
    fake_encoder: Annotated[
        float, typer.Option(metavar="MICROSECONDS", help="What an encoder sleeps for a frame.")
    ] = 0.0,
    cpus: Annotated[int, typer.Option(min=1, help="That each node says it has.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames per forward pass.")] = 16,
    rounds: RoundsOption = 1,
) -> None:
    """Videos per second, and CPU time, where nodes, decoding and encoding are pretended."""
    import bench_cluster

    with _told_errors():
        where = None if clips is None else str(clips)
        job = bench_cluster.ClusterJob(videos, clip_frames, fake_encoder, cpus, batch_size, where)
        measured = _told(bench_cluster.measured(job, nodes, rounds))
        typer.echo(bench_cluster.report(job, measured))


def _chosen(ways: list[str] | None, known: list[str]) -> list[str]:
    """The ways that are asked for, all of them by default.

    Raises:
        UsageError: one means nothing here.
    """
    for way in ways or ():
        if way not in known:
            raise UsageError(f"--way must be one of {', '.join(known)} here, not {way}.")
    return [way for way in known if not ways or way in ways]


def _told(rounds: Iterable[T]) -> list[T]:
    """All rounds; each is told of when it is measured."""
    measured = []
    for one in rounds:
        measured.append(one)
        _say(f"measured round {len(measured)}")
    return measured


@contextmanager
def _made_videos_folder(folder: Path | None) -> Iterator[Path]:
    if folder is not None:
        yield folder
        return
    with TemporaryDirectory() as temporary:
        yield Path(temporary)


@contextmanager
def _told_errors() -> Iterator[None]:
    try:
        yield
    except RayclipError as error:
        _say(str(error))
        raise typer.Exit(error.exit_status) from None


def _say(sentence: str) -> None:
    """Tell people, apart from the table."""
    typer.echo(f"bench: {sentence}", err=True)


if __name__ == "__main__":
    app()
