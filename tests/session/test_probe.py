"""What is asked of nodes before a run, and what is said of their answers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from rayclip.output.storage import OutputFolder
from rayclip.session.markers import marked, try_beside
from rayclip.session.probe import Needs, Report, look, nodes_to_probe, why_closed, why_not

HERE = {"rayclip": "0.1.0", "Ray": "2.60.0", "Python": "3.11.7"}
WELL = Report("good (10.0.0.1)", HERE)
NEEDS = Needs(video="/videos/a.mp4", folder=OutputFolder("/features", 64, {}))


def bad(*, versions: Mapping[str, str] = HERE, **found: Any) -> Report:
    return Report("bad (10.0.0.2)", versions, **found)


SENTENCES = [
    (
        bad(versions={**HERE, "rayclip": "0.0.9"}),
        "On node bad (10.0.0.2), there is rayclip 0.0.9, Ray 2.60.0, Python 3.11.7, but here "
        "rayclip 0.1.0, Ray 2.60.0, Python 3.11.7: install the same everywhere.",
    ),
    (
        bad(versions={"Ray": "2.60.0", "Python": "3.11.7"}, missing="No module named 'rayclip'"),
        "On node bad (10.0.0.2), rayclip cannot be imported (No module named 'rayclip'): install "
        "the same rayclip there as here, with the packages for your storage.",
    ),
    (
        bad(versions={}, failed="the disk is broken"),
        "On node bad (10.0.0.2), rayclip cannot run: the disk is broken.",
    ),
    (
        bad(troubles={"weights": "There is no network: name a mirror."}),
        "On node bad (10.0.0.2), the weights cannot be had: There is no network: name a mirror.",
    ),
    (
        bad(troubles={"input": "there is no such file"}),
        "On node bad (10.0.0.2), the input /videos/a.mp4 cannot be opened (there is no such file), "
        "but elsewhere it can: have the videos, or the credentials for them, in the same place on "
        "all nodes, or give URLs.",
    ),
    (
        bad(troubles={"unseen": "/features/.marker"}),
        "On node bad (10.0.0.2), the folder /features is another than here: choose an output_path "
        "that every node mounts in the same place, or a URL.",
    ),
    (
        bad(troubles={"output": "Read-only file system"}),
        "On node bad (10.0.0.2), nothing can be written to /features (Read-only file system): "
        "allow it there, or choose another output_path.",
    ),
]


@pytest.mark.parametrize(("report", "sentence"), SENTENCES)
def test_what_a_node_lacks_is_one_sentence_that_says_what_to_do(
    report: Report, sentence: str
) -> None:
    assert why_not(NEEDS, HERE, True, [WELL, report]) == sentence


def test_of_nodes_that_lack_nothing_nothing_is_said() -> None:
    assert why_not(NEEDS, HERE, True, [WELL, WELL]) is None
    assert why_not(NEEDS, HERE, True, []) is None


def test_an_input_that_opens_nowhere_is_a_bad_video_and_stops_no_run() -> None:
    closed = bad(troubles={"input": "there is no such file"})
    assert why_not(NEEDS, HERE, False, [closed, closed]) is None
    assert why_not(NEEDS, HERE, False, [closed, WELL]) is not None


def test_many_nodes_are_counted() -> None:
    nodes = [Report(f"n{i}", HERE, troubles={"output": "no"}) for i in range(5)]
    sentence = why_not(NEEDS, HERE, True, nodes)
    assert sentence is not None
    assert sentence.startswith("On nodes n0, n1, n2 and 2 more, nothing can be written")


def node(
    number: int, alive: bool = True, labels: Mapping[str, str] | None = None, **has: float
) -> Any:
    return {
        "NodeID": str(number),
        "NodeManagerHostname": f"n{number}",
        "NodeManagerAddress": "10.0.0.1",
        "Alive": alive,
        "Resources": {**has, f"node:{number}": 1.0},
        "Labels": {**(labels or {}), "ray.io/node-id": str(number)},
    }


def test_nodes_that_do_no_work_are_not_asked() -> None:
    nodes = [node(0), node(1, CPU=4.0), node(2, GPU=1.0), node(3, alive=False, CPU=4.0)]
    asked = {n.node_id: (n.decodes, n.encodes) for n in nodes_to_probe(nodes, "cuda")}
    assert asked == {"1": (True, False), "2": (False, True)}


def test_of_many_nodes_one_of_each_kind_is_asked() -> None:
    nodes = [node(i, CPU=4.0) for i in range(20)]
    nodes += [node(i, CPU=4.0, GPU=1.0) for i in range(20, 40)]
    nodes += [node(i, CPU=4.0, labels={"zone": "b"}) for i in range(40, 60)]
    assert [n.node_id for n in nodes_to_probe(nodes, "cuda")] == ["0", "20", "40"]
    assert len(nodes_to_probe(nodes[:16], "cuda")) == 16


def test_a_node_that_shares_the_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    folder = OutputFolder(str(tmp_path / "new" / "features"), 64, {})
    with marked(*folder.where()) as marker:
        assert Path(marker).parent == tmp_path
        needs = Needs(video=str(tmp_path / "a.mp4"), folder=folder, marker=marker)
        assert look(needs) == {}
    assert os.listdir(tmp_path) == ["a.mp4"]


def test_a_node_with_another_folder_of_that_name_says_so(tmp_path: Path) -> None:
    folder = OutputFolder(str(tmp_path), 64, {})
    with marked(*folder.where()) as marker:
        os.unlink(marker)  # as another disk would have it
        assert list(look(Needs(folder=folder, marker=marker))) == ["unseen"]
    assert os.listdir(tmp_path) == []


def test_who_may_not_write_says_why(tmp_path: Path) -> None:
    class ReadOnly(LocalFileSystem):  # type: ignore[misc]
        def pipe_file(self, path: str, *_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied", path)

    with pytest.raises(PermissionError):
        marked(ReadOnly(), str(tmp_path)).__enter__()
    with marked(LocalFileSystem(), str(tmp_path)) as marker, pytest.raises(PermissionError):
        try_beside(ReadOnly(), marker)


def test_a_storage_that_may_be_written_but_not_looked_at_will_do() -> None:
    class WriteOnly(MemoryFileSystem):  # type: ignore[misc]
        def exists(self, path: str, **_: object) -> bool:
            raise PermissionError(path)

    with marked(WriteOnly(), "/bucket/features") as marker:
        assert try_beside(WriteOnly(), marker)
    assert MemoryFileSystem().find("/bucket") == []


def test_weights_that_cannot_be_had_are_a_trouble(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    wanted = ("RN50", "0" * 64, str(tmp_path / "mirror"))
    assert "RAYCLIP_WEIGHTS_MIRROR" in look(Needs(weights=wanted))["weights"]

    checkpoint = tmp_path / "mirror" / ("0" * 64) / "RN50.pt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    assert look(Needs(weights=wanted)) == {}
    checkpoint.unlink()
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "RN50.pt").write_bytes(b"weights")
    assert look(Needs(weights=wanted)) == {}


def test_an_input_is_opened_wherever_it_is(tmp_path: Path, memory_url: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    os.mkfifo(tmp_path / "pipe.mp4")
    MemoryFileSystem().pipe_file(f"{memory_url}/b.mp4", b"video")
    assert why_closed(str(tmp_path / "a.mp4"), {}) is None
    assert why_closed(f"{memory_url}/b.mp4", {}) is None
    assert why_closed(str(tmp_path / "c.mp4"), {}) == "there is no such file"
    assert why_closed(f"{memory_url}/c.mp4", {}) == "there is no such file"
    assert why_closed(str(tmp_path / "pipe.mp4"), {}) == "it is not a file"
