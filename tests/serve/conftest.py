"""The page of generated videos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from served_pages import Drawn, client_of, draw
from starlette.testclient import TestClient


@pytest.fixture(scope="package")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Videos and features, which no test changes."""
    return draw(tmp_path_factory.mktemp("drawn"))


@pytest.fixture(scope="package")
def client(drawn: Drawn) -> Iterator[TestClient]:
    """A client of the page of these, which was let in."""
    with client_of(drawn.output, [drawn.videos]) as made:
        yield made


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
