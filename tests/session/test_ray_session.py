"""A private Ray that does not start ends the run with one sentence."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from run_cli import ON_LOOPBACK
from video_factories import numbered_frames, write_video

from rayclip.session.ray_session import nth_gpu

UNWILLING = """
import sys
import ray

def init(*_, _temp_dir, **__):
    print(_temp_dir, file=sys.stderr)
    raise Exception("The current node timed out during startup. The GCS may be\\noverloaded.")

ray.init = init
from rayclip.__main__ import main
main()
"""


def test_a_private_ray_that_does_not_start_ends_the_run_with_one_sentence(tmp_path: Path) -> None:
    """As on a machine so busy that Ray's own processes time out."""
    video = write_video(tmp_path / "a.mp4", numbered_frames(3))
    words = ["extract", str(video), "--address", "local", "--model-name", "demo"]
    words += ["--output-path", str(tmp_path / "out")]
    ended = subprocess.run(
        [sys.executable, "-c", UNWILLING, *words],
        env={**os.environ, **ON_LOOPBACK},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 3, ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "rayclip: No private Ray could start here: The current node timed out during startup. The "
        "GCS may be overloaded. If this machine is very busy or short of memory, rerun the same "
        "command later, or with --address none, which needs no Ray."
    )
    assert "Traceback" not in ended.stderr
    (folder,) = [line for line in ended.stderr.splitlines() if line.startswith("/tmp/rayclip-")]
    assert not Path(folder).exists()


@pytest.mark.parametrize(
    ("number", "visible", "only"),
    [
        (1, None, "1"),
        (0, "4,5", "4"),
        (1, "4, 5", "5"),
        (0, "GPU-8f2a,MIG-1b", "GPU-8f2a"),
        (2, "4,5", ""),
    ],
)
def test_a_gpu_is_counted_among_those_that_are_visible(
    number: int, visible: str | None, only: str
) -> None:
    assert nth_gpu(number, visible) == only
