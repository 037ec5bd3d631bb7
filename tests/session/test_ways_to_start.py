"""Real Rays on small machines and in unusual environments."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from run_cli import ON_LOOPBACK, Finished, call
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

clip, output = sys.argv[1:]

class Caller:
    def encode(self):
        rows = ray.data.from_items([{"path": clip}] * 12)
        encoded = rayclip.encode(rows, model_name="demo", device="cpu")
        return [len(row["clip"]) for row in encoded.take_all()]

def encode_in_an_actor(cpus):
    return ray.get(ray.remote(num_cpus=cpus)(Caller).remote().encode.remote())

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
summary = rayclip.extract(
    [clip], model_name="demo", on_extraction="save_numpy", output_path=output
)
print(summary.frames)
print(encode_in_an_actor(1))
encode_in_an_actor(2)
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("clip") / "a.mp4", numbered_frames(5))


def test_a_program_extracts_and_encodes_on_its_own_ray_with_the_cpus_that_are_left(
    clip: Path, tmp_path: Path
) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, clip, tmp_path],
        env={**os.environ, **ON_LOOPBACK},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert ended.stdout.splitlines()[-2:] == ["5", str([5] * 12)], ended.stderr
    assert "that this process started has no GPU: using the CPU." in ended.stderr
    assert "holds 2 CPUs, and its Ray has no other CPU: give it fewer" in ended.stderr


# ---- containers and launchers ----

QUOTAS = {  # CPU limit of a container, by version of cgroups -> its content for one CPU
    "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000",
    "/sys/fs/cgroup/cpu.max": "100000 100000",
}
LIMITS = [file for file in QUOTAS if os.path.exists(file)]


def in_a_container(clip: Path, folder: Path, temporary: str) -> Finished:
    """Extract features with ``uv run``, as far as Ray can tell, in a container of one CPU with a
    ``/tmp`` that is not writable.

    Args:
        clip: the video.
        folder: the working folder.
        temporary: the ``TMPDIR`` of the container, which is writable.
    """
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"], check=False)
    if tried.returncode:
        pytest.skip("mount namespaces need root")
    setup = [f"mount -t tmpfs none /mnt && mkdir {temporary}"]
    for limit in LIMITS[:1]:
        (folder / "quota").write_text(QUOTAS[limit])
        setup.append(f"mount --bind {folder}/quota {limit}")
    setup.append("mount --bind /tmp /tmp && mount -o remount,ro,bind /tmp")
    words = ["extract", str(clip), *DEMO, "--address", "local", "--verbose"]
    words += ["--output-path", f"{temporary}/out"]
    (folder / "run").write_text(
        "import subprocess, sys\n"
        f"sys.exit(subprocess.call([{sys.executable!r}, '-m', 'rayclip', *{words!r}]))\n"
    )
    (folder / "pyproject.toml").write_text("[project]\nname = 'a'\nversion = '0'\n")
    with open(folder / "large", "wb") as large:
        large.truncate(600 * 2**20)
    paths = os.pathsep.join(filter(None, sys.path))
    ended = subprocess.run(
        ["unshare", "-m", "bash", "-c", " && ".join([*setup, f"exec -a uv {sys.executable} run"])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": paths, "TMPDIR": temporary},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    return Finished(ended.returncode, ended.stdout, ended.stderr)


@pytest.fixture(scope="module")
def contained(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return in_a_container(clip, tmp_path_factory.mktemp("container"), "/mnt/t")


def test_another_folder_is_used_if_tmp_is_not_writable(contained: Finished) -> None:
    assert contained.status == 0, contained.stderr
    assert "Traceback" not in contained.stderr


def test_without_any_folder_for_it_a_private_ray_is_refused(clip: Path, tmp_path: Path) -> None:
    ended = in_a_container(clip, tmp_path, f"/mnt/{'long' * 10}")
    assert ended.status == 2
    assert "neither /tmp nor TMPDIR" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(not LIMITS, reason="this system has no control groups for CPUs")
def test_a_container_of_one_cpu_is_enough(contained: Finished) -> None:
    assert "videos: 1 done" in contained.stderr
    assert "encoders: 1, batch size: 16, decoding tasks at once: 1;" in contained.stderr


def test_a_private_ray_does_not_upload_the_working_folder_of_uv(contained: Finished) -> None:
    """Ray looks for a parent called ``uv run``, and uploads its working folder: 512 MiB at most."""
    assert contained.status == 0, contained.stderr


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
    ended = call(*words, env={"RAY_ADDRESS": address})
    assert ended.status == 2
    assert "RAY_ADDRESS" in ended.stderr
    assert "Traceback" not in ended.stderr
