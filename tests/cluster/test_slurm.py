"""The Slurm recipe, unchanged, on a real Slurm of two fake nodes."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import shapes
from hosts import BRIDGE_ADDRESS, Host, hosts, unsupported_reason
from run_cli import wait_until

RECIPE = Path(__file__).parents[2] / "cluster" / "slurm.sh"
NEEDED = ("slurmctld", "slurmd", "munged", "sbatch")

pytestmark = pytest.mark.ray

SLURM_CONF = """\
ClusterName=rayclip
SlurmctldHost={control}({control_address})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
MpiDefault=none
ReturnToService=2
KillWait=10
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""
NODE = "NodeName={name} NodeAddr={address} CPUs=2 RealMemory=2000 Gres=gpu:1 State=UNKNOWN"


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[tuple[Mapping[str, str], list[Host]]]:
    """Yield a small Slurm: the environment of a user on its login node, and its two nodes."""
    if absent := [name for name in NEEDED if shutil.which(name) is None]:
        pytest.skip(f"no {absent[0]} (on Debian: apt install slurmctld slurmd slurm-client munge)")
    if reason := unsupported_reason():
        pytest.skip(reason)
    (tmp_path / "state").mkdir()
    (tmp_path / "munge.key").write_bytes(os.urandom(64))
    (tmp_path / "munge.key").chmod(0o600)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "SLURM_CONF": f"{tmp_path}/slurm.conf", "PATH": path}
    daemons = []
    with hosts(tmp_path, "node-1", "node-2") as nodes:
        _configure(tmp_path, nodes)
        names = {kind: f"{tmp_path}/munge.{kind}" for kind in ("socket", "pid", "log", "seed")}
        munged = ["munged", "--foreground", "--force", f"--key-file={tmp_path}/munge.key"]
        munged += [f"--{kind}{'' if kind == 'socket' else '-file'}={names[kind]}" for kind in names]
        try:
            for command in (munged, ["slurmctld", "-D"]):
                daemons.append(subprocess.Popen(command, env=environment))
            for node in nodes:
                subprocess.run(node.inside("slurmd"), env=environment, check=True)
            idle = ["sinfo", "--noheader", "--states=idle", "--format=%D"]
            wait_until(
                lambda: subprocess.run(idle, env=environment, capture_output=True).stdout == b"2\n",
                "two idle nodes of Slurm",
            )
            yield environment, nodes
        finally:
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                daemon.wait()


def _configure(folder: Path, nodes: list[Host]) -> None:
    lines = [NODE.format(name=node.name, address=node.address) for node in nodes]
    conf = SLURM_CONF.format(
        folder=folder,
        control=socket.gethostname(),
        control_address=BRIDGE_ADDRESS,
        nodes="\n".join(lines),
    )
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")  # a fake GPU


def test_a_job_on_two_nodes_ends_with_the_status_of_rayclip_and_leaves_nothing_running(
    slurm: tuple[Mapping[str, str], list[Host]], tmp_path: Path
) -> None:
    environment, nodes = slurm
    videos = [tmp_path / f"video-{number}.mp4" for number in range(4)]
    for video in videos:
        shapes.write_video(video, [("red", "circle")], seconds_per_scene=1)
    listed = [*videos, tmp_path / "missing.mp4"]
    (tmp_path / "videos.txt").write_text("\n".join(map(str, listed)))
    options = f"--file-with-video-paths {tmp_path}/videos.txt --output-path {tmp_path}/features"
    options += " --model-name demo --device cpu --extraction-fps 5 --verbose"
    log = tmp_path / "log"
    submit = ["sbatch", "--wait", f"--output={log}", "--time=5", RECIPE, *options.split()]

    ended = subprocess.run(submit, env=environment, capture_output=True, text=True, timeout=200)

    assert ended.returncode == 1, log.read_text()  # done, but for one video
    assert "encoders: 2" in log.read_text()  # one on each node
    features = [np.load(tmp_path / "features/clip/demo" / f"{v.stem}_clip.npy") for v in videos]
    assert [array.shape for array in features] == [(5, 64)] * 4
    wait_until(lambda: [len(node.processes()) for node in nodes] == [1, 1], "only slurmd is left")
    for node in nodes:
        subprocess.run(node.inside("test", "!", "-e", "/tmp/rayclip-1"), check=True)
