"""The decoding benchmark compares equal work, and continues if a way fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import bench
import bench_decode
import numpy as np
import pytest
from bench_decode import BenchVideo, Row
from bench_measure import Cost, Failed
from bench_videos import ENCODINGS, make_videos
from bench_ways import BY_PILLOW, EVERYTHING, N_PX, RAYCLIP, REFERENCE, WAYS, nearest_frames
from typer.testing import CliRunner
from video_factories import numbered_frames, write_video

BENCHMARKS = Path(__file__).parent.parent / "scripts" / "benchmarks"
RATES = [Fraction(5), Fraction(3, 7), Fraction(24), None]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("videos") / "numbers.mp4"
    return write_video(path, numbered_frames(30), fps=10, codec="libx264")


@dataclass(frozen=True)
class BenchmarkRun:
    """The output of a benchmark: what it printed, and its JSON file."""

    printed: str
    saved: dict[str, Any]


@pytest.fixture(scope="module")
def result(video: Path, tmp_path_factory: pytest.TempPathFactory) -> BenchmarkRun:
    """One round at 5 fps; torchcodec cannot be imported, and decord kills the process."""
    folder = tmp_path_factory.mktemp("bench")
    (folder / "torchcodec.py").write_text("raise ImportError('there is no torchcodec')")
    (folder / "decord.py").write_text("import os; os._exit(9)")
    file = folder / "numbers.json"
    words = [video, "--extraction-fps", "5", "--rounds", "1", "--json", file]
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])
    ended = subprocess.run(  # a separate process: pytest's threads must not be forked
        [sys.executable, BENCHMARKS / "bench.py", "decode", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        check=True,
    )
    return BenchmarkRun(ended.stdout, json.loads(file.read_text()))


def test_the_table_has_a_row_for_each_video_and_rate(result: BenchmarkRun) -> None:
    header, _, row, end = result.printed.split("\n")[:4]
    assert end == ""
    cells = dict(zip(header.split("|")[1:-1], row.split("|")[1:-1], strict=True))
    cells = {name.strip(): cell.strip() for name, cell in cells.items()}
    assert [cells[name] for name in ("file", "codec", "size", "fps", "frames")] == [
        "numbers.mp4",
        "h264",
        "64x48",
        "5",
        "15",
    ]
    assert float(cells[RAYCLIP]) > 0
    assert float(cells["rayclip/everything"]) > 0
    assert (cells["torchcodec"], cells["decord"]) == ("-", "-")


def test_a_failed_way_is_reported_with_the_reason(result: BenchmarkRun) -> None:
    assert "\ntorchcodec: ImportError: there is no torchcodec\n" in result.printed
    assert "\ndecord: its process ended with status 9\n" in result.printed
    ways = result.saved["rows"][0]["ways"]
    assert ways["decord"]["ms_per_feature"] is None
    assert ways[EVERYTHING]["made"] == 15
    assert len(ways[EVERYTHING]["cpu_s"]) == 1


def test_the_last_line_is_the_summary(result: BenchmarkRun) -> None:
    ratio = result.saved["rows"][0]["ratios"]["rayclip/everything"]
    last = result.printed.splitlines()[-1]
    assert f"rayclip/everything mean {ratio:.2f}, max {ratio:.2f}" in last


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("way", [BY_PILLOW, EVERYTHING])
def test_ways_with_pillow_give_the_bytes_of_rayclip(
    way: str, video: Path, rate: Fraction | None
) -> None:
    ours, theirs = (list(WAYS[name].squares(video, rate)) for name in (RAYCLIP, way))
    assert ours[0].shape == (N_PX, N_PX, 3)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", [name for name in WAYS if name not in (RAYCLIP, EVERYTHING)])
def test_every_way_gives_the_same_number_of_frames(video: Path, name: str) -> None:
    for package in WAYS[name].packages:
        pytest.importorskip(package, exc_type=ImportError)
    for rate in RATES:
        ours, theirs = (len(list(WAYS[way].squares(video, rate))) for way in (RAYCLIP, name))
        assert abs(ours - theirs) <= 1


@pytest.mark.parametrize(
    ("frames", "fps", "rate", "expected"),
    [
        (10, 10.0, 5, [0, 2, 4, 6, 8]),
        (4, 2.0, 4, [0, 0, 1, 2, 2, 2, 3, 3]),  # halves to even
        (5, 25.0, 1, [0]),
    ],
)
def test_nearest_frames(frames: int, fps: float, rate: int, expected: list[int]) -> None:
    assert nearest_frames(frames, fps, Fraction(rate)) == expected


def row(rate: int | None, **cpu_s: Sequence[float]) -> Row:
    """A row of ten frames with these costs; the other ways failed."""
    costs: dict[str, Cost | Failed] = dict.fromkeys(WAYS, Failed("broken"))
    costs |= {way: Cost(10, tuple(seconds)) for way, seconds in cpu_s.items()}
    fps = None if rate is None else Fraction(rate)
    return Row(BenchVideo(Path(f"{rate}.mp4"), "h264", "64x48"), fps, costs)


def test_the_cheapest_round_is_used() -> None:
    assert row(1, **{RAYCLIP: [0.3, 0.1, 0.2]}).ms(RAYCLIP) == pytest.approx(10)


def test_the_summary_covers_usual_rates_and_successful_ways() -> None:
    rows = [
        row(1, **{RAYCLIP: [0.1], REFERENCE: [0.2]}),
        row(5, **{RAYCLIP: [0.2], REFERENCE: [0.2], EVERYTHING: [0.4]}),
        row(2, **{RAYCLIP: [0.2]}),
        row(25, **{RAYCLIP: [0.9], REFERENCE: [0.1]}),
        row(None, **{RAYCLIP: [0.9], REFERENCE: [0.1]}),
    ]
    assert bench_decode.summary(rows) == (
        "At 1 to 5 fps: rayclip/reference mean 0.75, max 1.00; "
        "rayclip/everything mean 0.50, max 0.50."
    )


def test_a_different_number_of_frames_is_reported() -> None:
    costs: dict[str, Cost | Failed] = dict.fromkeys(WAYS, Cost(10, (1.0,)))
    other_costs = costs | {BY_PILLOW: Cost(9, (1.0,))}
    other = Row(BenchVideo(Path("a.mp4"), "h264", "64x48"), Fraction(5), other_costs)
    same = Row(BenchVideo(Path("b.mp4"), "h264", "64x48"), Fraction(5), costs)
    assert bench_decode.notes([other, same]) == ["by Pillow: returns 9 frames (a.mp4 at 5 fps)"]


def test_every_rate_and_video_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "bars.svg"
    both = {RAYCLIP: [0.2], BY_PILLOW: [0.1]}
    bench_decode.draw([row(1, **{RAYCLIP: [0.1]}), row(None, **both)], file)
    assert file.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["absent.mp4"], "absent.mp4 cannot be opened: No such file or directory."),
        ([__file__], f"{__file__} cannot be opened: Invalid data found when processing input."),
        (["--extraction-fps", "often"], "--extraction-fps often: "),
        (["--extraction-fps", "0"], "--extraction-fps 0: a frame rate must be above zero"),
        (["--rounds", "0"], "--rounds must be at least 1, not 0."),
        (["--json", "absent/numbers.json"], "There is no folder absent for numbers.json."),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], sentence: str) -> None:
    ended = CliRunner().invoke(bench.app, ["decode", *words])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"bench: {sentence}")
    assert ended.stderr.count("\n") == 1


def test_every_codec_has_a_generated_video_that_is_kept(tmp_path: Path) -> None:
    paths = make_videos(tmp_path, size=(128, 96), seconds=0.5)
    assert [path.stem for path in paths] == list(ENCODINGS)
    for path in paths:
        with av.open(str(path)) as container:
            assert len(list(container.decode(video=0))) == 15
    times = [path.stat().st_mtime_ns for path in paths]
    assert make_videos(tmp_path, size=(128, 96), seconds=0.5) == paths
    assert [path.stat().st_mtime_ns for path in paths] == times
    assert sorted(tmp_path.iterdir()) == sorted(paths)
