"""What several test files share."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from ray_clusters import ray_head
from svt_av1 import usual_priority
from video_factories import SHARED_DATA


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real videos and what ffmpeg makes of them: too large, and not ours, to be in the checkout."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"there is no test data in {SHARED_DATA} (RAYCLIP_TEST_DATA names another)")
    return SHARED_DATA


@pytest.fixture
def memory_url(tmp_path: Path) -> Iterator[str]:
    """A folder of its own on fsspec's in-memory storage."""
    url = f"memory://{tmp_path.name}"
    yield url
    fs, root = fsspec.core.url_to_fs(url)
    if fs.exists(root):
        fs.rm(root, recursive=True)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray with four CPUs that somebody else started, on loopback."""
    with ray_head(tmp_path_factory.mktemp("ray")) as address:
        yield address


@pytest.fixture(autouse=True)
def _usual_priority() -> Iterator[None]:
    yield
    usual_priority()
