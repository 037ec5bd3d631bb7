"""Measure the peak memory of every process of a run on one long video, at native rate.

    python scripts/benchmarks/measure_memory.py  # three hours, the demo model
    python scripts/benchmarks/measure_memory.py --model ViT-B/32 --fake-encoder 200

A video of one minute is generated, and its packets are repeated. With --fake-encoder, the encoder
sleeps this many microseconds per frame instead of computing: on a few CPUs, a large model would
need days.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

sys.path.append(str(Path(__file__).parents[1]))  # the modules that all scripts share

import shapes
from bench_encode import Model, model_named
from bench_processes import with_stand_ins
from long_video import repeated
from peak_memory import MemoryWatch, Peak, report

FPS = 25

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(help=__doc__)
def measure(
    hours: Annotated[float, typer.Option(min=1 / 60, help="Length of the video.")] = 3.0,
    model: Annotated[str, typer.Option(help="demo, ViT-B/32 or ViT-L/14.")] = "demo",
    width: Annotated[int, typer.Option(help="Width of the video (4:3).")] = 320,
    fake_encoder: Annotated[
        float | None, typer.Option(help="Microseconds per frame instead of encoding.")
    ] = None,
) -> None:
    with TemporaryDirectory(prefix="rayclip-memory-") as folder:
        work = Path(folder)
        video = _long_video(work, hours, width)
        typer.echo(f"{hours:g} h, {video.stat().st_size / 2**20:.0f} MB of video", err=True)
        started = time.monotonic()
        summary, peaks = _run(video, model_named(model, work), fake_encoder, work / "output")
        seconds = time.monotonic() - started
    typer.echo(f"{summary}\n{hours:g} h at {FPS} fps, {model}, {seconds:.0f} s\n\n{report(peaks)}")


def _long_video(work: Path, hours: float, width: int) -> Path:
    minute = work / "minute.mp4"
    scenes = [(colour, shape) for colour in shapes.COLOURS for shape in shapes.SHAPES][:30]
    size = {"width": width, "height": width * 3 // 4}
    shapes.write_video(minute, scenes, fps=FPS, seconds_per_scene=2.0, **size)
    return repeated(minute, work / "long.mp4", round(hours * 60))


def _run(
    video: Path, model: Model, fake_microseconds: float | None, output: Path
) -> tuple[str, list[Peak]]:
    """The last line of the command, and the peak memory of its processes."""
    words = [sys.executable, "-m", "rayclip", "extract", str(video), "--address", "local"]
    words += ["--model-name", model.model_name, "--on-extraction", "save_numpy"]
    words += ["--output-path", str(output)]
    if model.weights is not None:
        words += ["--weights", model.weights]
    environment = with_stand_ins(microseconds=fake_microseconds)
    with (
        subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as command,
        MemoryWatch(command.pid) as watch,
    ):
        _, stderr = command.communicate()
    lines = stderr.strip().splitlines() or ["it printed nothing"]
    if command.returncode:
        typer.echo(f"The run ended with {command.returncode}: {lines[-1]}", err=True)
        raise typer.Exit(1)
    return lines[-1], watch.peaks


if __name__ == "__main__":
    app()
