"""Fixtures shared by several test files."""

import os
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from ray_clusters import ray_head
from svt_av1 import reset_priority
from video_factories import SHARED_DATA

# Not yet read: torch is imported later. Two workers with two threads each wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Otherwise torch compiles a program for each of the CPU's sets of vector instructions.
os.environ.setdefault("TORCHINDUCTOR_VEC_ISA_OK", "1")

LONGEST = (
    "cluster/test_growing.py",
    "faults/test_devices.py",
    "faults/test_kills.py",
    "test_pipeline.py",
)
"""Files of tests that take longest. They begin first, then the others that need Ray, so that no
worker is left alone with one."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(
        key=lambda item: (
            not item.nodeid.partition("::")[0].endswith(LONGEST),
            item.get_closest_marker("ray") is None,
        )
    )


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real videos and ffmpeg's output for them. Too large, and not ours, to be included."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"there is no test data in {SHARED_DATA} (RAYCLIP_TEST_DATA names another)")
    return SHARED_DATA


@pytest.fixture
def memory_url(tmp_path: Path) -> Iterator[str]:
    """A folder on fsspec's in-memory storage for one test."""
    url = f"memory://{tmp_path.name}"
    yield url
    fs, root = fsspec.core.url_to_fs(url)
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an existing Ray cluster with four CPUs, on loopback."""
    with ray_head(tmp_path_factory.mktemp("ray")) as address:
        yield address


@pytest.fixture(autouse=True)
def _reset_priority() -> Iterator[None]:
    yield
    reset_priority()
