"""Without Ray: which devices encode, and what happens to one that fails."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from rayclip.actors.encoder import EncoderSettings
from rayclip.errors import RunStopped
from rayclip.io.crash_log import CrashLog
from rayclip.local.devices import LocalEncoders
from rayclip.model.models import describe
from rayclip.session.devices import devices_here

SPEC = describe("demo")
DEADLINE_S = 60.0


@pytest.mark.parametrize(
    ("wanted", "gpus", "devices"),
    [
        (None, 0, ["cpu"]),
        ("cuda", 0, ["cpu"]),
        ("cpu", 2, ["cpu"]),
        (None, 1, ["cuda"]),
        (None, 2, ["cuda:0", "cuda:1"]),
        ("cuda", 2, ["cuda:0", "cuda:1"]),
        ("cuda:1", 2, ["cuda:1"]),
    ],
)
def test_all_gpus_are_used_unless_one_is_named(
    wanted: str | None, gpus: int, devices: list[str]
) -> None:
    assert devices_here(wanted, gpus) == devices


@pytest.fixture
def log(tmp_path: Path) -> Iterator[CrashLog]:
    log = CrashLog(str(tmp_path / "log"))
    yield log
    log.close()


def encoders(devices: Sequence[str], log: CrashLog, is_restart: bool = False) -> LocalEncoders:
    settings = [[EncoderSettings(SPEC, device, 4, 1)] for device in devices]
    return LocalEncoders(settings, log, is_restart)


def test_chunks_go_to_the_device_with_the_fewest_frames_and_all_have_the_same_bits(
    log: CrashLog,
) -> None:
    both = encoders(["cpu", "cpu"], log)
    both.wait_until_loaded()
    frames = [np.full((SPEC.n_px, SPEC.n_px, 3), 7, np.uint8)]
    futures = [both.submit(frames * 3, (0,)) for _ in range(6)]
    results = [future.result()[0] for future in futures]
    assert all(np.array_equal(result, results[0]) for result in results)
    assert all(work.frames for work in both.work)


@pytest.mark.parametrize("is_restart", [False, True])
def test_a_device_that_cannot_be_used_is_left_out_with_a_note(
    is_restart: bool, log: CrashLog
) -> None:
    found = encoders(["cuda:9", "cpu"], log, is_restart)
    assert [model.device for model in found.wait_until_loaded()] == ["cpu"]
    ((note,),) = [work.notes for work in found.work]
    assert note.startswith("A device is not used. No encoder can start: ")


def test_without_any_device_the_run_stops(log: CrashLog) -> None:
    with pytest.raises(RunStopped, match="No encoder can start"):
        encoders(["cuda:9"], log).wait_until_loaded()
