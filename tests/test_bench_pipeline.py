"""The benchmark of the pipeline counts every frame and every process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import bench
import bench_encode
import bench_pipeline
import pytest
import torch
from bench_encode import BATCHER, FORWARD, job_of
from bench_pipeline import ALONE, DECODE, RAYCLIP, REFERENCE, SUMMARY, Done, PipelineJob, clips_of
from bench_processes import Work
from typer.testing import CliRunner
from video_factories import numbered_frames, write_video

from rayclip.model.checkpoint import openai_clip

BENCHMARKS = Path(__file__).parent.parent / "scripts" / "benchmarks"
TINY = ["--model", "demo", "--rounds", "1", "--seconds", "0.2"]
MACHINERY = ["--synthetic-decode", "--fake-encoder", "10", "--clips", "4", "--clip-frames", "3"]


def run(*words: str) -> str:
    ended = CliRunner().invoke(bench.app, words)
    assert ended.exit_code == 0, ended.stderr
    return ended.stdout


def parse_rows(printed: str) -> dict[str, dict[str, str]]:
    """The first table: way -> column -> cell."""
    lines = printed.partition("\n\n")[0].splitlines()
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def test_encode_compares_with_the_forward_loop() -> None:
    ways = [word for way in (FORWARD, BATCHER) for word in ("--way", way)]
    rows = parse_rows(run("encode", *TINY, *ways))
    assert list(rows) == [FORWARD, BATCHER]
    assert (rows[FORWARD]["speed/limit"], rows[FORWARD]["CPU/limit"]) == ("1.000", "1.000")
    for row in rows.values():
        assert int(row["frames"]) > 0
        assert float(row["frames/s"]) > 0
        assert float(row["speed/limit"]) > 0


def test_the_stand_ins_need_no_videos() -> None:
    printed = run("pipeline", *TINY, *MACHINERY, "--way", ALONE)
    rows = parse_rows(printed)
    assert list(rows) == [ALONE]
    assert rows[ALONE]["frames"] == "9"  # of four clips minus one
    assert float(rows[ALONE]["start CPU s"]) > 0


def test_the_reference_gives_the_same_number_of_frames(tmp_path: Path) -> None:
    pytest.importorskip("cv2", exc_type=ImportError)
    video = write_video(tmp_path / "numbers.mp4", numbered_frames(30), fps=10, codec="libx264")
    weights = tmp_path / "small.pt"
    shape = (48, 224, 1, 64, 32, 20, 49408, 64, 1, 1)
    torch.save(openai_clip().model.CLIP(*shape).state_dict(), weights)
    words = [
        sys.executable,
        BENCHMARKS / "peers/reference.py",
        "2",
        weights,
        tmp_path,
        video,
        video,
    ]
    ended = subprocess.run(words, stderr=subprocess.PIPE, text=True, check=True)
    summary = SUMMARY.search(ended.stderr)
    assert summary is not None
    assert int(summary[1]) == 2 * 6


BURN_AFTER_THE_COMMAND = """
import os, sys
from bench_processes import run_command
burn = "import time\\nwhile time.process_time() < 0.6: pass"
shell = 'setsid "$0" -c "$1" & sleep 0.1'
ended = run_command(["sh", "-c", shell, sys.executable, burn], os.environ)
print(ended.wall_s, ended.cpu_s)
"""


def test_every_process_of_a_command_is_measured() -> None:
    words = [sys.executable, "-c", BURN_AFTER_THE_COMMAND]
    ended = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, cwd=BENCHMARKS)
    wall_s, cpu_s = map(float, ended.stdout.split())
    assert wall_s < 0.5
    assert cpu_s == pytest.approx(0.6, abs=0.25)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> PipelineJob:
    model = bench_encode.model_named("demo", tmp_path_factory.mktemp("model"))
    folder = tmp_path_factory.mktemp("clips") / "clips"
    clips = clips_of([Path("a.mp4"), Path("b.mkv")], 5, folder)
    return PipelineJob(job_of(model, None, "auto", 1.0), model, clips, None)


def test_clips_are_the_videos_in_turn(job: PipelineJob) -> None:
    assert [clip.name for clip in job.clips] == [
        "clip00000.mp4",
        "clip00001.mkv",
        "clip00002.mp4",
        "clip00003.mkv",
        "clip00004.mp4",
    ]
    assert job.clips[3].readlink() == Path("b.mkv").absolute()
    assert job.few == 2


def test_the_report_has_medians_and_every_ratio(job: PipelineJob) -> None:
    def round_of(rayclip_s: float) -> dict[str, Done]:
        ours = Work(100, rayclip_s, 3.0)
        return {
            FORWARD: Done(Work(50, 0.9, 0.9)),
            DECODE: Done(Work(100, 1.0, 0.9)),
            RAYCLIP: Done(ours, Work(120, rayclip_s + 4, 5.0)),
            ALONE: Done(Work(100, 2.0, 2.9), Work(120, 3.0, 4.0)),
            REFERENCE: Done(Work(100, 4.0, 6.0), Work(120, 6.0, 10.0)),
        }

    printed = bench_pipeline.report(job, [round_of(s) for s in (2.0, 9.0, 1.8)], fill=0.957)
    row = parse_rows(printed)[RAYCLIP]
    assert (row["frames"], row["frames/s"], row["wall ms"]) == ("100", "50.0", "20.00")
    assert (row["CPU ms"], row["start s"], row["start CPU s"]) == ("30.00", "3.6", "1.4")
    assert parse_rows(printed)[DECODE]["start s"] == "-"
    assert printed.rpartition("\n\n")[2].splitlines() == [
        "speed, rayclip / forward loop: 0.900 (0.200 to 1.000)",
        "speed, rayclip / reference: 2.000 (0.444 to 2.222)",
        "CPU, (decode alone + forward loop) / rayclip: 0.900 (0.900 to 0.900)",
        "CPU, (decode alone + forward loop) / rayclip without Ray: 0.931 (0.931 to 0.931)",
        "CPU, rayclip / reference: 0.500 (0.500 to 0.500)",
        "CPU us/frame, rayclip - rayclip without Ray: 1000 (1000 to 1000)",
        "wall of a run and its start, rayclip / reference: 1.000 (0.967 to 2.167)",
        "CPU of a run and its start, rayclip / reference: 0.500 (0.500 to 0.500)",
        "mean batch fill, batches of 16: 0.96",
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["encode", "--model", "RN5"],
            "--model must be one of demo, small, ViT-B/32, ",
        ),
        (["encode", "--way", "magic"], "--way must be one of forward loop, ClipModel, "),
        (["pipeline", "--extraction-fps", "often"], "--extraction-fps often: "),
        (["pipeline", "absent.mp4", "--model", "demo"], "absent.mp4 cannot be opened: "),
        (
            ["pipeline", *TINY, *MACHINERY, "--way", DECODE],
            "--way must be one of rayclip, rayclip without Ray here, not decode alone.",
        ),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], sentence: str) -> None:
    ended = CliRunner().invoke(bench.app, words)
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"bench: {sentence}")
    assert ended.stderr.count("\n") == 1
