"""A real run in which the device fails as torch says it: what is not at fault comes out as ever.

There is no GPU here. A ``sitecustomize`` module, which Python imports at the start of every process
of the run, makes the model raise what torch raises; it recognises videos by their colour.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import shapes
import video_factories
from patch_on_import import PATCH_ON_IMPORT
from ray_clusters import FEWER_PROCESSES, ray_head
from run_cli import ON_LOOPBACK, Finished, call, rayclip

pytestmark = pytest.mark.ray

COPIES = 6
SECONDS = 1.0

FAULTY = '''
import os, signal
from pathlib import Path

FAULTS, ONCE = Path(os.environ["TEST_FAULTS"]), Path(os.environ["TEST_ONCE"])
KINDS = {"green": 1, "blue": 2}


def of_colour(images, colour):
    """Which of these pictures are flat and of a colour."""
    import numpy as np

    pixels = np.stack(images).reshape(len(images), -1, 3)
    flat = pixels.std(axis=1).max(axis=1) < 5
    return flat & (pixels.argmax(axis=2) == KINDS[colour]).all(axis=1)


def failing(real):
    import numpy as np
    import torch

    faults = FAULTS.read_text()

    def encode_image(self, images):
        if "memory" in faults and self.batch_size > 32:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        if "always" in faults and ONCE.exists():
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\\nadvice")
        ONCE.touch()
        if "illegal" in faults and of_colour(images, "green").any():
            raise torch.AcceleratorError(
                "CUDA error: an illegal memory access was encountered\\nadvice"
            )
        features = real(self, images)
        if "nan" in faults:
            features[of_colour(images, "blue")] = np.nan
        return features

    return encode_image


def starved(*_):
    """What becomes of a process whose model does not fit into its node's memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def put_faults_into(module):
    module.LoadedModel.encode_image = failing(module.LoadedModel.encode_image)
    if "starved" in FAULTS.read_text():
        module.load_spec = starved


def be_impatient(module):
    module.UNEXPLAINED_DEATHS = 2


PATCHES = {
    "rayclip.model.loading": put_faults_into,
    "rayclip.actors.device_faults": be_impatient,
}

'''


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Copies of one clip, and among them one video that is all green and one all blue."""
    folder = tmp_path_factory.mktemp("videos")
    clips = [folder / f"clip_{i:02}.mp4" for i in range(COPIES)]
    shapes.write_video(clips[0], [("red", "circle"), ("white", "star")], seconds_per_scene=SECONDS)
    for copy in clips[1:]:
        shutil.copyfile(clips[0], copy)
    for name, colour in {"green": (0, 200, 0), "blue": (0, 0, 200)}.items():
        frame = np.full((48, 64, 3), colour, np.uint8)
        video_factories.write_video(folder / f"{name}.mp4", [frame] * 40)
    return [*clips[:2], folder / "green.mp4", *clips[2:4], folder / "blue.mp4", *clips[4:]]


@pytest.fixture(scope="module")
def undisturbed(videos: list[Path], tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The features of the clip from a device without faults, in batches of 32."""
    output = tmp_path_factory.mktemp("undisturbed")
    words = command(videos[:1], output, "--batch-size", "32", "--address", "none")
    assert call(*words).status == 0
    return features(videos[0], output).read_bytes()


@dataclass(frozen=True)
class FaultyDevices:
    """Devices with faults.

    Attributes:
        folder: with the module, and with the faults of the current run.
        address: of the Ray whose devices they are; "none" for those of this machine.
    """

    folder: Path
    address: str

    @property
    def environment(self) -> dict[str, str]:
        """Of all processes that may load a model."""
        return {
            "PYTHONPATH": os.pathsep.join([str(self.folder), os.environ.get("PYTHONPATH", "")]),
            "TEST_FAULTS": str(self.folder / "faults"),
            "TEST_ONCE": str(self.folder / "once"),
        }

    def run(self, faults: str, *words: str | Path) -> Finished:
        """Run the command while the devices have these faults."""
        (self.folder / "sitecustomize.py").write_text(FAULTY + PATCH_ON_IMPORT)
        (self.folder / "faults").write_text(faults)
        (self.folder / "once").unlink(missing_ok=True)
        words += ("--device", "cpu", "--address", self.address)
        return rayclip(*words, env={**ON_LOOPBACK, **self.environment})


@pytest.fixture(scope="module")
def on_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyDevices]:
    devices = FaultyDevices(tmp_path_factory.mktemp("devices"), "")
    (devices.folder / "sitecustomize.py").write_text(FAULTY + PATCH_ON_IMPORT)
    options = f"--num-cpus=2 --num-gpus=0 {FEWER_PROCESSES}"
    with ray_head(tmp_path_factory.mktemp("ray"), devices.environment, options) as address:
        yield replace(devices, address=address)


@pytest.fixture
def without_ray(tmp_path: Path) -> FaultyDevices:
    return FaultyDevices(tmp_path, "none")


def command(videos: Sequence[Path], output: Path, *options: str) -> list[str | Path]:
    words: list[str | Path] = ["extract", *videos, "--model-name", "demo", *options]
    return [*words, "--on-extraction", "save_numpy", "--output-path", output]


def features(video: Path, output: Path) -> Path:
    return output / "clip" / "demo" / f"{video.stem}_clip.npy"


def test_only_the_videos_at_fault_fail_where_memory_is_short_and_frames_poison_the_device(
    on_ray: FaultyDevices, videos: list[Path], undisturbed: bytes, tmp_path: Path
) -> None:
    words = command(videos, tmp_path, "--batch-size", "64")
    ended = on_ray.run("memory illegal nan", *words)
    assert ended.status == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    for video in videos:
        if video.stem in ("green", "blue"):
            assert not features(video, tmp_path).exists()
        else:
            assert features(video, tmp_path).read_bytes() == undisturbed
    (log,) = tmp_path.rglob("failures.jsonl")
    failures = {Path(f["video"]).stem: f for f in map(json.loads, log.read_text().splitlines())}
    assert failures.keys() == {"green", "blue"}
    assert (failures["blue"]["stage"], failures["blue"]["code"]) == ("encode", "not_finite")
    assert (failures["green"]["stage"], failures["green"]["code"]) == ("encode", "encoder_failed")
    assert failures["green"]["message"] == (
        "the encoder failed: these frames ended 2 of its processes "
        "(CUDA error: an illegal memory access was encountered)"
    )


def test_an_encoder_whose_device_keeps_failing_is_given_up(
    on_ray: FaultyDevices, videos: list[Path], tmp_path: Path
) -> None:
    ended = on_ray.run("always", *command(videos[:1], tmp_path))
    assert ended.status == 3, ended.stderr
    assert "No encoder is left: their devices keep failing." in ended.stderr
    assert "Traceback" not in ended.stderr


def test_an_encoder_that_is_killed_whenever_it_loads_its_model_ends_the_run(
    on_ray: FaultyDevices, videos: list[Path], tmp_path: Path
) -> None:
    ended = on_ray.run("starved", *command(videos[:1], tmp_path))
    assert ended.status == 3, ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "rayclip: No encoder can start: their processes keep dying while they load the model, "
        "probably because memory is short."
    )
    assert "Traceback" not in ended.stderr


def test_without_ray_only_the_video_at_fault_fails_if_it_poisons_the_device(
    without_ray: FaultyDevices, videos: list[Path], undisturbed: bytes, tmp_path: Path
) -> None:
    output = tmp_path / "output"
    words = command(videos[1:4], output, "--batch-size", "64", "--max-attempts", "1")
    ended = without_ray.run("memory illegal", *words)
    assert ended.status == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "has no memory for batches of 64 frames: it uses batches of 32" in ended.stderr
    for video in (videos[1], videos[3]):
        assert features(video, output).read_bytes() == undisturbed
    (log,) = output.rglob("failures.jsonl")
    (failure,) = map(json.loads, log.read_text().splitlines())
    assert (Path(failure["video"]).stem, failure["stage"], failure["code"]) == (
        "green",
        "encode",
        "encoder_failed",
    )
    assert "CUDA error: an illegal memory access was encountered" in failure["message"]
    assert "\n" not in failure["message"]


def test_without_ray_a_device_that_keeps_failing_ends_the_run(
    without_ray: FaultyDevices, videos: list[Path], tmp_path: Path
) -> None:
    ended = without_ray.run("always", *command(videos[:1], tmp_path / "output"))
    assert ended.status == 3, ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "rayclip: No encoder is left: CUDA error: unspecified launch failure"
    )
    assert "Traceback" not in ended.stderr
