"""The comparison with other ways counts frames, and tells which of them are the right ones."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import bench
import bench_peers
import numpy as np
import pytest
from bench_encode import Model
from bench_measure import Failed
from bench_peers import ALONE, PeersJob, Run
from bench_processes import CommandFailed, run_command
from bench_right_frames import Expected, expected_frames
from typer.testing import CliRunner
from video_factories import numbered_frames, write_video

import rayclip

EXPECTED = Expected(np.arange(6) * 100.0, np.eye(6, dtype=np.float32), np.array([1, 3, 5]))


def test_rayclip_shows_the_right_frames_of_generated_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_peers, "PATTERN", [(256, 144)])
    words = ["peers", "--clips", "1", "--seconds", "1", "--rounds", "1", "--way", ALONE]
    picture = tmp_path / "bars.svg"
    words += ["--picture", str(picture)]
    ended = CliRunner().invoke(bench.app, words)
    assert ended.exit_code == 0, ended.stderr
    row = [cell.strip() for cell in ended.stdout.splitlines()[2].split("|")[1:-1]]
    assert row[0] == ALONE
    assert row[4:] == ["5", "100.0%", "0", "0"]
    assert picture.read_text().startswith("<?xml")


@pytest.mark.parametrize(
    ("shown", "offsets"),
    [
        ([1, 3, 5], [0, 0, 0]),
        ([0, 3, 4], [100, 0, 100]),
        ([3, 5], [200, 200]),  # one is missing at the start: all others come too early
        ([1, 3, 5, 5], [0, 0, 0]),
    ],
)
def test_the_distance_from_the_right_frame(shown: list[int], offsets: list[float]) -> None:
    noise = np.random.default_rng(0).normal(0, 0.1, (len(shown), 6))
    assert EXPECTED.offsets_ms(np.eye(6)[shown] * 3 + noise).tolist() == offsets


def test_the_right_frames_are_those_of_the_rule(tmp_path: Path) -> None:
    video = write_video(tmp_path / "numbers.mp4", numbered_frames(12), fps=10, codec="libx264")
    expected = expected_frames(video, 5, rayclip.load_clip("demo", device="cpu"))
    assert expected.right.tolist() == [0, 2, 4, 6, 8, 10]
    assert expected.features.shape == (12, 64)
    assert expected.times_ms.tolist() == [float(Fraction(100) * n) for n in range(12)]


def test_a_way_that_fails_is_a_row_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Works:
        def run(self, job: PeersJob, output: Path) -> Run:
            return Run(2.0, 3.0, {"a": np.eye(6, dtype=np.float32)[[1, 3, 4]]})

    class Fails:
        def run(self, job: PeersJob, output: Path) -> Run:
            raise CommandFailed("it cannot be installed")

    class Forgets:
        def run(self, job: PeersJob, output: Path) -> Run:
            return Run(2.0, 3.0, {})

    monkeypatch.setattr(bench_peers, "WAYS", {"one": Works(), "two": Fails(), "three": Forgets()})
    job = PeersJob([Path("a.mp4")], 5, Model("demo", None), tmp_path, 9.0)
    vars(job)["expected"] = {"a": EXPECTED}
    *_, found = bench_peers.measured(job, ["one", "two", "three"], 2)
    assert found["two"] == Failed("it cannot be installed")
    header, _, one, two, *_ = bench_peers.report(job, found).splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == bench_peers.HEADER
    assert [cell.strip() for cell in one.split("|")[2:-1]] == [
        "1.5",
        "2.0",
        "3.0",
        "3",
        "66.7%",
        "0",
        "100",
    ]
    assert {cell.strip() for cell in two.split("|")[2:-1]} == {"-"}
    assert bench_peers.report(job, found).endswith(
        "two: it cannot be installed\n\nthree: it saved no features"
    )


def test_a_command_that_does_not_end_is_stopped() -> None:
    with pytest.raises(CommandFailed, match="did not end within 0 s"):
        run_command([sys.executable, "-c", "while True: pass"], {}, limit_s=0.2)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--way", "magic"], "--way must be one of rayclip, rayclip without Ray, "),
        (["absent.mp4"], "absent.mp4 cannot be opened: "),
        (["--picture", "absent/bars.svg"], "There is no folder absent for bars.svg."),
    ],
)
def test_bad_input_is_one_sentence(words: list[str], sentence: str) -> None:
    ended = CliRunner().invoke(bench.app, ["peers", *words])
    assert (ended.exit_code, ended.stdout) == (2, "")
    assert ended.stderr.startswith(f"bench: {sentence}")
