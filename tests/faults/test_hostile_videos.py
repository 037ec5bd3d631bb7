"""Videos that take their worker process down, for real: they are told by name, others come out.

Nothing in rayclip helps with this. A ``sitecustomize`` module, which Python imports at the start of
every process of the run, makes videos of certain names crash, hang or kill the process that decodes
them, after their first frame.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import shapes
from calls import rayclip

pytestmark = pytest.mark.ray

GROUP = 4
INNOCENT = 12

HOSTILITY = '''
import ctypes, os, signal, sys
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path

LIBC = ctypes.CDLL(None)


def small_groups(resources):
    resources.videos_per_task = lambda *_: int(os.environ["TEST_GROUP"])


def impatience(watchdog):
    watchdog.LIBAV = watchdog.Watchdog(1.0)


def hostility(decoder):
    open_shown = decoder.open_shown

    def after_the_first(frames, path):
        yield next(frames)
        if "crash" in path.stem:
            ctypes.string_at(0)
        if "hang" in path.stem:
            from rayclip.media.watchdog import LIBAV

            with LIBAV:
                LIBC.pause()
        if "killed" in path.stem:
            before = Path(os.environ["TEST_KILLS"])
            with before.open("a") as file:
                file.write("x")
            if before.stat().st_size <= 4:
                os.kill(os.getpid(), signal.SIGKILL)
        yield from frames

    @contextmanager
    def open_hostile(source, *rest):
        with open_shown(source, *rest) as wanted:
            yield wanted._replace(frames=after_the_first(wanted.frames, Path(source)))

    decoder.open_shown = open_hostile


PATCHES = {
    "rayclip.session.resources": small_groups,
    "rayclip.media.watchdog": impatience,
    "rayclip.actors.decoder": hostility,
}


class Patching:
    """Patches modules once they are imported."""

    @staticmethod
    def find_spec(name, path, target=None):
        spec = PathFinder.find_spec(name, path, target) if name in PATCHES else None
        if spec is not None:
            load = spec.loader.exec_module

            def exec_module(module):
                load(module)
                PATCHES[name](module)

            spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, Patching)
'''


def test_videos_that_crash_hang_or_are_killed_harm_no_others(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    first = videos / "innocent_00.mp4"
    shapes.write_video(first, [("red", "circle")], seconds_per_scene=1.0)
    names = [f"innocent_{i:02}" for i in range(1, INNOCENT)]
    names[2:2], names[6:6], names[9:9] = ["crash"], ["hang"], ["killed"]
    paths = [first, *(videos / f"{name}.mp4" for name in names)]
    for path in paths[1:]:
        shutil.copyfile(first, path)
    (tmp_path / "sitecustomize.py").write_text(HOSTILITY)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "TEST_GROUP": str(GROUP),
        "TEST_KILLS": str(tmp_path / "kills"),
    }
    words = ["extract", *paths, "--model-name", "demo", "--max-attempts", "2"]
    words += ["--on-extraction", "save_numpy", "--output-path", tmp_path / "output"]
    ended = rayclip(*words, env=environment)
    assert ended.status == 1, ended.stderr
    assert "Traceback" not in ended.stderr
    assert "worker died" not in ended.stdout + ended.stderr  # as Ray has it, at length
    made = {path.stem: path for path in (tmp_path / "output").glob("clip/demo/*_clip.npy")}
    assert made.keys() == {f"{path.stem}_clip" for path in paths} - {"crash_clip", "hang_clip"}
    assert len({path.read_bytes() for path in made.values()}) == 1
    log = tmp_path / "output" / "clip" / "demo" / "failures.jsonl"
    failures = {Path(f["video"]).stem: f for f in map(json.loads, log.read_text().splitlines())}
    assert {name: (f["code"], f["message"], f["attempts"]) for name, f in failures.items()} == {
        "crash": (
            "worker_crashed",
            "its worker process crashed 2 times (Segmentation fault)",
            2,
        ),
        "hang": (
            "worker_hung",
            "its worker process hung 2 times (libav has not moved for 1 s)",
            2,
        ),
    }
    assert (tmp_path / "kills").stat().st_size == 5  # more often than max_attempts
