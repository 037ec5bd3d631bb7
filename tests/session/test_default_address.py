"""Where a run goes if nobody says."""

from __future__ import annotations

from pathlib import Path

import pytest

from rayclip.session import default_address
from rayclip.session.default_address import address_for
from rayclip.settings import Settings


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with an entry for each GPU of a machine on which no Ray is known."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(default_address, "is_connected", lambda: False)
    monkeypatch.setattr(default_address, "DRIVER", tmp_path)
    return tmp_path


def add_gpus(machine: Path, count: int) -> None:
    for number in range(count):
        (machine / f"0000:{number:02}:00.0").mkdir()


@pytest.mark.parametrize("gpus", [0, 1])
def test_one_device_needs_no_ray(machine: Path, gpus: int) -> None:
    add_gpus(machine, gpus)
    address = address_for(Settings())
    assert address.address == "none"
    assert address.reason


def test_several_gpus_get_a_private_ray(machine: Path) -> None:
    add_gpus(machine, 4)
    assert address_for(Settings()) == ("local", "on a private Ray, for 4 GPUs")


@pytest.mark.parametrize("device", ["cpu", "cuda:2"])
def test_one_device_that_is_named_needs_no_ray(machine: Path, device: str) -> None:
    add_gpus(machine, 4)
    assert address_for(Settings(device=device)).address == "none"


@pytest.mark.parametrize("visible", ["", "2"])
def test_hidden_gpus_do_not_count(
    machine: Path, visible: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_gpus(machine, 4)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert address_for(Settings()).address == "none"


def test_a_machine_without_the_driver_has_no_gpus(machine: Path) -> None:
    machine.rmdir()
    assert address_for(Settings()).address == "none"


@pytest.mark.parametrize("settings", [Settings(encoders=2), Settings(encoders_per_gpu=2)])
def test_several_encoders_get_a_private_ray(settings: Settings) -> None:
    assert address_for(settings).address == "local"


@pytest.mark.parametrize("address", ["none", "local", "auto", "10.0.0.1:6379"])
def test_a_given_address_decides(
    machine: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_gpus(machine, 4)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert address_for(Settings(address=address)) == (address, "")


def test_a_known_ray_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.2:6379")
    assert address_for(Settings()) == (None, "")
    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.setattr(default_address, "is_connected", lambda: True)
    assert address_for(Settings()) == (None, "")
