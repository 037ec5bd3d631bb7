"""Every command and every line of Python in the README works."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapes
from commands import ON_LOOPBACK, call, rayclip

README = (Path(__file__).parent.parent / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMANDS = [
    line.partition("#")[0].strip()
    for language, block in BLOCKS
    for line in block.splitlines()
    if language == "bash" and line.startswith("rayclip ")
]
READING = [command for command in COMMANDS if not command.startswith("rayclip extract")]
HERE = [
    command for command in COMMANDS if command not in READING and "--address auto" not in command
]
ON_A_CLUSTER = [command for command in COMMANDS if "--address auto" in command]
PYTHON = [block for language, block in BLOCKS if language == "python"]

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module", autouse=True)
def folder_of_a_reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files that the README speaks of."""
    folder = tmp_path_factory.mktemp("reader")
    for name, shape in (("cat", "circle"), ("dog", "star")):
        shapes.write_video(folder / f"{name}.mp4", [("red", shape)], seconds_per_scene=0.4)
    videos = ["cat.mp4", "dog.mp4"]
    (folder / "videos.txt").write_text("\n".join(videos))
    pq.write_table(pa.table({"path": videos}), folder / "videos.parquet")
    return folder


@pytest.fixture(autouse=True)
def _there(folder_of_a_reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder_of_a_reader)


@pytest.mark.parametrize("command", HERE)
def test_a_command_of_the_tour_run_after_those_above_it(command: str) -> None:
    words = shlex.split(command)[1:]
    if "--model-name" not in words:  # official weights are a download of 350 MB
        words += ["--model-name", "demo"]
    ended = rayclip(*words)
    assert ended.status == 0, ended.stderr
    assert "videos: " in ended.stderr


@pytest.mark.parametrize("command", ON_A_CLUSTER)
def test_a_command_of_the_tour_on_a_cluster(command: str, cluster: str, tmp_path: Path) -> None:
    words = shlex.split(command)[1:]
    words += ["--model-name", "demo", "--device", "cpu", "--address", cluster]
    ended = rayclip(*words, "--output-path", tmp_path, env=ON_LOOPBACK)
    assert ended.status == 0, ended.stderr
    assert len(list(tmp_path.glob("clip/demo/*_clip.npy"))) == 2


@pytest.mark.parametrize("command", READING)
def test_a_command_that_reads_what_the_tour_made(command: str) -> None:
    ended = call(*shlex.split(command.partition("|")[0])[1:])
    assert ended.status == 0, ended.stderr
    assert ended.stderr == ""


@pytest.mark.parametrize("block", PYTHON)
def test_the_python_of_the_tour(block: str) -> None:
    ended = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.splitlines()[0] == "0 2 []"  # the commands above did them
    assert "(1, 64)" in ended.stdout
    assert ended.stderr == ""


def test_the_table_of_options_has_every_option() -> None:
    help_text = call("extract", "--help", env={"COLUMNS": "200"}).stdout
    options = set(re.findall(r"--[a-z-]+(?=[ ,])", help_text)) - {"--help"}
    table = README.partition("## Options")[2].partition("\nExit status")[0]
    assert options == set(re.findall(r"^\| `(--[a-z-]+)`", table, re.MULTILINE))
