"""The commands for two machines in the README of the recipes, on two hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import shapes
from hosts import hosts, unsupported_reason
from run_cli import wait_until

README = Path(__file__).parents[2] / "cluster" / "README.md"
SECTION = README.read_text().partition("## Two machines by hand")[2].partition("\n## ")[0]
IN_EVERY_SHELL, HEAD, WORKER, RUN, STOP = re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)
SSH = """
ssh() {{ (cd {home} && "${{@:2}}"); }}
scp() {{ cp "$1" {home}/"${{2#*:}}"; }}
"""
OURS = " --model-name demo --device cpu --extraction-fps 5 --verbose\n"

pytestmark = pytest.mark.ray


@pytest.fixture
def two(tmp_path: Path) -> Iterator[list[Callable[[str], str]]]:
    """Yield two machines, as shells that run commands of the README and return their output."""
    if reason := unsupported_reason():
        pytest.skip(reason)

    with hosts(tmp_path, "first", "second") as machines:

        def shell(number: int) -> Callable[[str], str]:
            host = machines[number]
            home = tmp_path / host.name
            home.mkdir()
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            environment = {**os.environ, "HOME": str(home), "PATH": path, "RAY_AUTH_MODE": ""}

            def run(commands: str) -> str:
                commands = commands.replace("10.0.0.1", machines[0].address)
                commands = commands.replace("/shared", str(tmp_path))
                script = ["set -e", SSH.format(home=tmp_path / "second"), IN_EVERY_SHELL, commands]
                ended = subprocess.run(
                    host.inside("bash", "-c", "\n".join(script)),
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    timeout=120,
                )
                assert ended.returncode == 0, ended.stdout
                if commands == STOP:
                    wait_until(lambda: not host.processes(), f"the end of Ray on {host.name}")
                return ended.stdout

            return run

        yield [shell(0), shell(1)]


def test_two_machines_share_the_work_and_a_token(
    two: list[Callable[[str], str]], tmp_path: Path
) -> None:
    videos = [tmp_path / f"video-{number}.mp4" for number in range(4)]
    for video in videos:
        shapes.write_video(video, [("red", "circle")], seconds_per_scene=1)
    (tmp_path / "videos.txt").write_text("\n".join(map(str, videos)))
    first, second = two

    first(HEAD)
    second(WORKER)
    said = second(RUN.strip() + OURS)
    second(STOP)
    first(STOP)

    assert "encoders: 2" in said  # one on each
    features = [np.load(tmp_path / "features/clip/demo" / f"{v.stem}_clip.npy") for v in videos]
    assert [array.shape for array in features] == [(5, 64)] * 4
    tokens = {(tmp_path / name / ".ray/auth_token").read_text() for name in ("first", "second")}
    assert len(tokens) == 1
