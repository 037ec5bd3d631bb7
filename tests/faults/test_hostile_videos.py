"""Videos that take their worker process down, for real: they are told by name, others come out.

:mod:`hostility` makes videos of certain names crash, hang or kill the process that decodes them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import shapes
from hostility import hostile_environment
from run_cli import rayclip

pytestmark = pytest.mark.ray

GROUP = 4
INNOCENT = 12


@dataclass(frozen=True)
class Run:
    """What became of some videos: how many are done, and code, message and attempts of the others,
    by the stems of their names."""

    done: int
    failures: dict[str, tuple[str, str, int]]


def run_in_groups(videos: Sequence[str], folder: Path) -> Run:
    """Extract features of copies of one video that have these names, :data:`GROUP` in a task."""
    (folder / "videos").mkdir()
    paths = [folder / "videos" / f"{name}.mp4" for name in videos]
    shapes.write_video(paths[0], [("red", "circle")], seconds_per_scene=1.0)
    for path in paths[1:]:
        shutil.copyfile(paths[0], path)
    environment = hostile_environment(folder, GROUP)
    words = ["extract", *paths, "--address", "local", "--model-name", "demo"]
    words += ["--max-attempts", "2"]
    words += ["--on-extraction", "save_numpy", "--output-path", folder / "output"]
    ended = rayclip(*words, env=environment)
    assert ended.status == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "worker died" not in ended.stdout + ended.stderr  # as Ray has it, at length
    output = folder / "output" / "clip" / "demo"
    assert len({path.read_bytes() for path in output.glob("*_clip.npy")}) == 1
    lines = (output / "failures.jsonl").read_text().splitlines()
    return Run(
        done=len([*output.glob("*_clip.npy")]),
        failures={
            Path(failure["video"]).stem: (failure["code"], failure["message"], failure["attempts"])
            for failure in map(json.loads, lines)
        },
    )


CRASHED = ("worker_crashed", "its worker process crashed 2 times (Segmentation fault)", 2)
HUNG = ("worker_hung", "its worker process hung 2 times (libav has made no progress for 1 s)", 2)


# Each line once misled what read the log of a dead process, in which the name stood unquoted.
MISLEADING = 'hang\n+99 "y"\nFatal Python error: Bus error\n'


def test_videos_that_crash_hang_or_are_killed_harm_no_others(tmp_path: Path) -> None:
    names = [f"innocent_{i:02}" for i in range(INNOCENT)]
    names[3:3], names[7:7], names[10:10] = ["crash"], [MISLEADING], ["killed"]
    run = run_in_groups(names, tmp_path)
    assert run.failures == {"crash": CRASHED, MISLEADING: HUNG}
    assert run.done == len(names) - 2
    assert (tmp_path / "kills").stat().st_size == 4  # more often than max_attempts
