"""Measure rayclip and its alternatives, interleaved in one run.

    python scripts/benchmarks/bench.py decode           # on generated videos; about 20 minutes
    python scripts/benchmarks/bench.py decode my.mp4 --extraction-fps 2
    python scripts/benchmarks/bench.py segments my.mp4  # a long video, decoded in parallel
    python scripts/benchmarks/bench.py encode           # the model, and rayclip's overhead
    python scripts/benchmarks/bench.py models           # what a frame costs with each model
    python scripts/benchmarks/bench.py pipeline         # rayclip extract and its parts
    python scripts/benchmarks/bench.py peers            # other ways to the same features
    python scripts/benchmarks/bench.py gpu              # what only a GPU can tell; 8 minutes
    python scripts/benchmarks/bench.py lists            # a long list, before any video is read
    python scripts/benchmarks/bench.py cluster          # many simulated nodes

Absolute numbers depend on the machine and the moment; compare ratios within one run.
"""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from rayclip.errors import UsageError
from rayclip.model.precision import CPU_BATCH_SIZE

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

import bench_decode
import bench_segments
from bench_options import (
    BatchSizeOption,
    FolderOption,
    JsonOption,
    ModelOption,
    PictureOption,
    PrecisionOption,
    RoundsOption,
    SecondsOption,
    WaysOption,
    check_file,
    check_picture,
    chosen,
    exit_statuses,
    say,
    video_folder,
    with_progress,
)
from bench_videos import make_videos

app = typer.Typer(
    help="Measure the costs of rayclip.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def decode(
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Local videos; default: generated ones.")
    ] = None,
    extraction_fps: Annotated[
        list[str], typer.Option(help="Frames per second, or native; repeatable.")
    ] = ["1", "2", "5"],  # noqa: B006  # typer's way to give a list a default
    rounds: Annotated[int, typer.Option(help="Number of measurements.")] = 3,
    make: Annotated[
        bool, typer.Option("--make", help="Add the generated videos to the given ones.")
    ] = False,
    folder: FolderOption = None,
    json_file: JsonOption = None,
    picture: PictureOption = None,
) -> None:
    """CPU milliseconds per feature, from the video to the model's input."""
    with exit_statuses(), video_folder(folder) as generated:
        rates = [bench_decode.parse_rate(name) for name in extraction_fps]
        if rounds < 1:
            raise UsageError(f"--rounds must be at least 1, not {rounds}.")
        check_file(json_file)
        check_picture(picture)
        paths = list(videos or ())
        described = [bench_decode.describe(path) for path in paths]
        if make or not paths:
            say(f"generating videos in {generated}")
            described += map(bench_decode.describe, make_videos(generated))

        rows = []
        for row in bench_decode.measured(described, rates, rounds):
            rows.append(row)
            say(f"measured {row.name}")
        typer.echo(bench_decode.report(rows, rounds))
        if json_file is not None:
            json_file.write_text(json.dumps(bench_decode.as_json(rows, rounds), indent=1))
        if picture is not None:
            bench_decode.draw(rows, picture)


@app.command()
def segments(
    video: Annotated[Path, typer.Argument(help="A local video with many keyframes.")],
    count: Annotated[
        list[int], typer.Option("--segments", help="Number of segments; repeatable.")
    ] = [1, 2, 4],  # noqa: B006
    extraction_fps: Annotated[
        str, typer.Option(help="Frames per second, or native.")
    ] = bench_decode.NATIVE,
    rounds: Annotated[int, typer.Option(help="Number of measurements.")] = 3,
) -> None:
    """Wall time of decoding one video in segments, each in its own process."""
    with exit_statuses():
        fps = bench_decode.parse_rate(extraction_fps)
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
    """Speed and CPU time of encoding: the model, the batcher, the actor on Ray."""
    import bench_encode

    with exit_statuses(), TemporaryDirectory() as folder:
        ways = chosen(way, list(bench_encode.WAYS))
        named = bench_encode.model_named(model, Path(folder))
        job = bench_encode.job_of(named, batch_size, precision, seconds)
        measured = with_progress(bench_encode.measured(job, ways, rounds))
        typer.echo(bench_encode.report(job, measured))


@app.command()
def models(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="OpenAI's name, open_clip:ARCH, timm:NAME or timm:NAME@PIXELS; repeatable."
        ),
    ] = None,
    batch_size: BatchSizeOption = None,
    rounds: RoundsOption = 5,
) -> None:
    """CPU time of encoding a frame with the models of each family, with random weights."""
    import bench_models

    with exit_statuses():
        size = batch_size or CPU_BATCH_SIZE
        names = model or bench_models.MODELS
        *_, costs = with_progress(bench_models.measured(names, size, rounds))
        typer.echo(bench_models.report(costs, size))


@app.command()
def pipeline(
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Local videos; default: generated ones.")
    ] = None,
    clips: Annotated[int, typer.Option(min=2, help="Videos per run.")] = 40,
    extraction_fps: Annotated[str, typer.Option(help="Frames per second, or native.")] = "1",
    synthetic_decode: Annotated[
        bool,
        typer.Option("--synthetic-decode", help="Skip decoding: the encoder limits."),
    ] = False,
    clip_frames: Annotated[
        int, typer.Option(min=1, help="Frames per clip, with --synthetic-decode.")
    ] = 24,
    fake_encoder: Annotated[
        float | None,
        typer.Option(metavar="MICROSECONDS", help="Sleep this long per frame instead of encoding."),
    ] = None,
    model: ModelOption = "ViT-B/32",
    batch_size: BatchSizeOption = None,
    precision: PrecisionOption = "auto",
    way: WaysOption = None,
    seconds: SecondsOption = 10.0,
    rounds: RoundsOption = 5,
    folder: FolderOption = None,
) -> None:
    """Speed and CPU time of rayclip extract, of its parts, and of the reference."""
    import bench_encode
    import bench_pipeline

    with (
        exit_statuses(),
        video_folder(folder) as generated,
        TemporaryDirectory() as temporary,
    ):
        rate = bench_decode.parse_rate(extraction_fps)
        named = bench_encode.model_named(model, Path(temporary))
        encode_job = bench_encode.job_of(named, batch_size, precision, seconds)
        if synthetic_decode:
            sources = [Path("synthetic.mp4")]
        elif videos:
            sources = [bench_decode.describe(path).path for path in videos]
        else:
            say(f"generating videos in {generated}")
            sources = make_videos(generated)
        job = bench_pipeline.PipelineJob(
            encode_job,
            named,
            bench_pipeline.clips_of(sources, clips, Path(temporary, "clips")),
            rate,
            clip_frames if synthetic_decode else None,
            fake_encoder,
        )
        ways = chosen(way, job.ways)
        if bench_pipeline.REFERENCE in ways and find_spec("cv2") is None:
            raise UsageError(
                "The reference needs OpenCV: pip install 'rayclip[bench]', or select other rows "
                "with --way."
            )
        fill = bench_pipeline.batch_fill(job) if bench_pipeline.RAYCLIP in ways else None
        measured = with_progress(bench_pipeline.rounds_of(job, ways, rounds))
        typer.echo(bench_pipeline.report(job, measured, fill))


@app.command()
def peers(
    videos: Annotated[
        list[Path] | None, typer.Argument(help="Local videos; default: generated ones.")
    ] = None,
    clips: Annotated[int, typer.Option(min=1, help="Number of generated videos.")] = 16,
    seconds: Annotated[
        float, typer.Option(help="Length of the small ones; the large ones are 4 times as long.")
    ] = 30.0,
    extraction_fps: Annotated[int, typer.Option(min=1, help="Frames per second.")] = 5,
    model: ModelOption = "small",
    way: WaysOption = None,
    rounds: RoundsOption = 3,
    limit: Annotated[
        float, typer.Option(metavar="SECONDS", help="Stop a way that takes longer.")
    ] = 900.0,
    folder: FolderOption = None,
    environments: Annotated[
        Path | None,
        typer.Option(help="Folder of the virtual environments; existing ones are reused."),
    ] = None,
    picture: PictureOption = None,
) -> None:
    """rayclip and other ways to the features of videos: time, CPU time, right frames."""
    import bench_encode
    import bench_peers
    from bench_pipeline import clips_of

    with (
        exit_statuses(),
        video_folder(folder) as generated,
        video_folder(environments) as homes,
        TemporaryDirectory() as temporary,
    ):
        ways = chosen(way, list(bench_peers.WAYS))
        check_picture(picture)
        named = bench_encode.model_named(model, Path(temporary))
        sources = [bench_decode.describe(path).path for path in videos or ()]
        if not sources:
            say(f"generating videos in {generated}")
            sources = bench_peers.make_clips(clips, seconds, generated)
        links = clips_of(sources, len(sources), Path(temporary, "clips"))
        job = bench_peers.PeersJob(links, extraction_fps, named, homes.resolve(), limit)
        *_, found = with_progress(bench_peers.measured(job, ways, rounds))
        typer.echo(bench_peers.report(job, found))
        if picture is not None:
            bench_peers.draw(found, picture)


@app.command()
def gpu(
    model: Annotated[
        list[str] | None, typer.Option(help="Only this model, with random weights; repeatable.")
    ] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this part; repeatable.")] = None,
    minutes: Annotated[float, typer.Option(min=0.1, help="How long all parts may take.")] = 8.0,
    json_file: JsonOption = None,
) -> None:
    """What only a GPU can tell: speed, batch sizes, memory, precision, and whole runs."""
    import bench_encode
    import bench_gpu

    with exit_statuses():
        check_file(json_file)
        parts = chosen(part, list(bench_gpu.WEIGHTS), "--part")
        models = chosen(model or list(bench_gpu.MODELS), list(bench_encode.SHAPES), "--model")
        job = bench_gpu.GpuJob(models, parts, minutes)
        done = []
        for result in bench_gpu.measured(job):
            done.append(result)
            say(f"measured {result.name} in {result.seconds:.0f} s")
            if json_file is not None:
                json_file.write_text(json.dumps(bench_gpu.as_json(done), indent=1))
        typer.echo(bench_gpu.report(done))


@app.command()
def lists(
    videos: Annotated[int, typer.Option(min=1, help="Length of the list.")] = 1_000_000,
    done: Annotated[int, typer.Option(min=0, help="Number of videos that are done.")] = 100_000,
    suffix: Annotated[
        str, typer.Option(help="Format of the list: .txt, .csv, .tsv, .jsonl, .parquet.")
    ] = ".txt",
    real: Annotated[
        bool, typer.Option("--real", help="Write and list three real files per done video.")
    ] = False,
    extra_columns: Annotated[
        bool, typer.Option("--carried", help="Add three columns that are carried along.")
    ] = False,
    results: Annotated[
        int, typer.Option(min=0, help="Videos of a real run on Ray with trivial tasks.")
    ] = 0,
) -> None:
    """Time and memory of the driver for a long list."""
    import bench_lists

    with exit_statuses():
        job = bench_lists.Lists(videos, done, real, suffix, extra_columns, results)
        typer.echo(bench_lists.report(job, bench_lists.measured(job)))


@app.command()
def cluster(
    nodes: Annotated[list[int], typer.Option(min=1, help="Number of nodes; repeatable.")] = [8],  # noqa: B006
    videos: Annotated[int, typer.Option(min=20, help="Videos per node.")] = 2500,
    clip_frames: Annotated[int, typer.Option(min=1, help="Frames per video.")] = 8,
    clips: Annotated[
        Path | None, typer.Option(help="Decode the clips in this folder instead.")
    ] = None,
    fake_encoder: Annotated[
        float, typer.Option(metavar="MICROSECONDS", help="How long an encoder sleeps per frame.")
    ] = 0.0,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs that each node declares.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Frames per forward pass.")] = 16,
    rounds: RoundsOption = 1,
) -> None:
    """Videos per second and CPU time if nodes, decoding and encoding are simulated."""
    import bench_cluster

    with exit_statuses():
        folder = None if clips is None else str(clips)
        job = bench_cluster.ClusterJob(videos, clip_frames, fake_encoder, cpus, batch_size, folder)
        measured = with_progress(bench_cluster.measured(job, nodes, rounds))
        typer.echo(bench_cluster.report(job, measured))


if __name__ == "__main__":
    app()
