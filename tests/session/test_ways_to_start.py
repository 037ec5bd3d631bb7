"""Real Rays on small machines and in unusual environments."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import psutil
import pytest
from run_cli import ON_LOOPBACK, Finished, finish, rayclip, start_rayclip, wait_until
from video_factories import numbered_frames, write_video

from rayclip.errors import UsageError
from rayclip.session import devices, ray_session
from rayclip.settings import Settings

pytestmark = pytest.mark.ray

DEADLINE_S = 120
DEMO = ("--model-name", "demo", "--device", "cpu", "--on-extraction", "save_numpy")
SCRIPT = """
import sys
import ray, ray.data, rayclip

cpus, held, clip, output = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], sys.argv[4]
how = {"model_name": "demo", "device": sys.argv[5] if sys.argv[5:] else None}

def extract():
    summary = rayclip.extract(
        [clip], on_extraction="save_numpy", output_path=output, overwrite=True, **how
    )
    return summary.frames

def encode():
    rows = [{"path": clip}] * 12
    return [len(row["clip"]) for row in rayclip.encode(ray.data.from_items(rows), **how).take_all()]

class Caller:
    def encode(self):
        return encode()

ray.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False)
if held:
    print(ray.get(ray.remote(num_cpus=held)(Caller).remote().encode.remote()))
else:
    print(extract(), encode())
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "a.mp4", numbered_frames(5))


def run_script(*words: str | Path) -> Finished:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *map(str, words)],
        env={**os.environ, **ON_LOOPBACK},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return Finished(ended.returncode, ended.stdout, ended.stderr)


def test_videos_are_extracted_and_encoded_on_one_cpu(clip: Path, tmp_path: Path) -> None:
    ended = run_script("1", "0", clip, tmp_path)
    assert ended.stdout.splitlines()[-1:] == [f"5 {[5] * 12}"], ended.stderr
    assert "that this process started has no GPU: using the CPU." in ended.stderr


def test_videos_are_encoded_inside_an_actor_that_holds_one_of_two_cpus(
    clip: Path, tmp_path: Path
) -> None:
    ended = run_script("2", "1", clip, tmp_path, "cpu")
    assert ended.stdout.splitlines()[-1:] == [str([5] * 12)], ended.stderr


def test_a_caller_that_holds_all_cpus_is_refused(clip: Path, tmp_path: Path) -> None:
    ended = run_script("1", "1", clip, tmp_path, "cpu")
    assert "holds 1 CPUs, and its Ray has no other CPU: give it fewer" in ended.stderr


# ---- containers ----

QUOTAS = {  # CPU limit of a container, by version of cgroups -> its content for one CPU
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
    "/sys/fs/cgroup/cpu.max": "100000 100000",
}


def in_a_namespace(mount: str, *words: str | Path, **env: str) -> Finished:
    """Run ``rayclip`` in a mount namespace with other files."""
    command = ["unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    command += [sys.executable, "-m", "rayclip", *map(str, words)]
    ended = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, text=True, timeout=DEADLINE_S
    )
    return Finished(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture
def namespaces() -> None:
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
    if tried.returncode:
        pytest.skip("mount namespaces need root")


@pytest.mark.usefixtures("namespaces")
def test_a_container_of_one_cpu_is_enough(clip: Path, tmp_path: Path) -> None:
    there = [file for file in QUOTAS if os.path.exists(file)]
    if not there:
        pytest.skip("this system has no control groups for CPUs")
    (tmp_path / "quota").write_text(QUOTAS[there[0]])
    mount = f"mount --bind {tmp_path / 'quota'} {there[0]}"
    words = ["extract", clip, *DEMO, "--output-path", tmp_path / "out", "--address", "local"]
    ended = in_a_namespace(mount, *words, "--verbose")
    assert ended.status == 0, ended.stderr
    assert "videos: 1 done" in ended.stderr
    assert "encoders: 1, batch size: 16, decoding tasks at once: 1;" in ended.stderr


@pytest.mark.usefixtures("namespaces")
@pytest.mark.parametrize("has_short_folder", [True, False])
def test_another_folder_is_used_if_tmp_is_not_writable(
    clip: Path, has_short_folder: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = Path("/mnt/t" if has_short_folder else f"/mnt/{'long' * 10}")
    mount = f"mount -t tmpfs none /mnt && mkdir {folder} && cp {clip} {folder}/a.mp4"
    mount += " && mount --bind /tmp /tmp && mount -o remount,ro,bind /tmp"
    output = ["--output-path", folder / "out", "--address", "local"]
    ended = in_a_namespace(mount, "extract", folder / "a.mp4", *DEMO, *output, TMPDIR=str(folder))
    assert "Traceback" not in ended.stderr
    if has_short_folder:
        assert ended.status == 0, ended.stderr
    else:
        assert ended.status == 2
        assert "neither /tmp nor TMPDIR" in ended.stderr


# ---- devices ----


@pytest.mark.parametrize("device", [None, "cuda"])
@pytest.mark.parametrize("is_of_this_process", [True, False])
def test_without_gpus_the_cpu_is_used_only_on_a_ray_that_this_process_started(
    device: str | None,
    is_of_this_process: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(devices, "_cpus_for_us", lambda _: [8.0])
    monkeypatch.setattr(devices, "_is_of_this_process", lambda: is_of_this_process)
    if is_of_this_process:
        assert devices.device_on_ray(Settings(device=device), private=False)[0] == "cpu"
        assert "using the CPU." in capsys.readouterr().err
    else:
        with pytest.raises(UsageError, match=r"--device cpu.*--encoders N"):
            devices.device_on_ray(Settings(device=device), private=False)


def test_encoders_wait_for_gpus_if_their_number_is_given(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 8.0})
    monkeypatch.setattr(devices, "_cpus_for_us", lambda _: [8.0])
    monkeypatch.setattr(devices, "_is_of_this_process", lambda: False)
    device, resources = devices.device_on_ray(Settings(encoders=2), private=False)
    assert (device, resources.encoders, resources.gpus) == ("cuda", 2, 1.0)
    assert "2 encoders were requested, but this Ray has 0 GPUs" in capsys.readouterr().err


# ---- addresses ----


@pytest.fixture
def listening(clip: Path, tmp_path: Path) -> Iterator[str]:
    """Yield the addresses that a run with ``RAY_ADDRESS=local`` listens on."""
    words = ["extract", clip, *DEMO, "--output-path", tmp_path / "out"]
    with start_rayclip(*words, env={"RAY_ADDRESS": "local"}) as running:
        sockets: list[str] = []

        def listen() -> bool:
            children = psutil.Process(running.pid).children(recursive=True)
            for process in children:
                try:
                    found = process.net_connections("tcp")
                except psutil.Error:
                    continue
                sockets.extend(c.laddr.ip for c in found if c.status == psutil.CONN_LISTEN)
            return len(sockets) > 20

        wait_until(listen, "sockets of a private Ray", running)
        yield " ".join(sorted(set(sockets)))
        assert finish(running).status == 0


def test_local_is_a_ray_that_only_this_machine_can_reach(listening: str) -> None:
    assert listening.replace("::ffff:", "") == "127.0.0.1"


def test_local_in_the_environment_means_a_private_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "local")
    monkeypatch.setattr(ray_session, "is_connected", lambda: False)
    monkeypatch.setattr(ray_session, "_private_ray", lambda *_: nullcontext())
    with ray_session.ray_session(None, None, verbose=False) as is_private:
        assert is_private


def test_a_private_ray_is_refused_while_another_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ray_session, "is_connected", lambda: True)
    with (
        pytest.raises(UsageError, match="already connected to a Ray"),
        ray_session.ray_session("local", None, verbose=False),
    ):
        pass


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_bad_address_in_the_environment_names_its_variable(
    address: str, clip: Path, tmp_path: Path
) -> None:
    words = ["extract", clip, *DEMO, "--output-path", tmp_path / "out"]
    ended = rayclip(*words, env={"RAY_ADDRESS": address})
    assert ended.status == 2
    assert "RAY_ADDRESS" in ended.stderr
    assert "Traceback" not in ended.stderr


# ---- launchers ----


def test_a_private_ray_does_not_upload_the_working_folder_of_uv(clip: Path, tmp_path: Path) -> None:
    """Ray looks for a parent called ``uv run``, and uploads its working folder: 512 MiB at most."""
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'a'\nversion = '0'\n")
    with open(tmp_path / "large", "wb") as large:
        large.truncate(600 * 2**20)
    words = ["extract", str(clip), *DEMO, "--output-path", "out", "--address", "local"]
    (tmp_path / "run").write_text(
        "import subprocess, sys\n"
        f"sys.exit(subprocess.call([{sys.executable!r}, '-m', 'rayclip', *{words!r}]))\n"
    )
    ended = subprocess.run(
        ["bash", "-c", f"exec -a uv {sys.executable} run"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.returncode == 0, ended.stderr
