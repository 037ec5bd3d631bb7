"""Videos that harm the process that decodes them, for real, by their names.

Nothing in rayclip helps with this. A ``sitecustomize`` module, which Python imports at the start of
every process of the run, makes videos of certain names crash, hang, fill the memory of or kill the
process that decodes them, after their first frame. One in a tar file may remove that and crash.
"""

from __future__ import annotations

import os
from pathlib import Path

from patch_on_import import PATCH_ON_IMPORT

HOSTILITY = """
import ctypes, mmap, os, signal
from contextlib import contextmanager
from pathlib import Path

LIBC = ctypes.CDLL(None)


def small_groups(resources):
    resources.videos_per_task = lambda *_: int(os.environ["TEST_GROUP"])


def impatience(watchdog):
    watchdog.LIBAV = watchdog.Watchdog(1.0, 2**28, 2**29)
    watchdog.FURTHER_VIDEO_MEMORY = 2**27


def hostility(decoder):
    wanted_frames = decoder.VideoExtractor._wanted_frames

    def after_the_first(frames, path):
        yield next(frames)
        if "gone" in path.stem:
            path.parent.unlink()
        if "crash" in path.stem or "gone" in path.stem:
            ctypes.string_at(0)
        if "hang" in path.stem:
            from rayclip.media.watchdog import LIBAV

            with LIBAV:
                LIBC.pause()
        if "memory" in path.stem:
            block = mmap.mmap(-1, 2**30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            block.write(bytes(2**30))
            from rayclip.media.watchdog import LIBAV

            while True:
                with LIBAV:
                    LIBC.usleep(1000)
        if "killed" in path.stem:
            before = Path(os.environ["TEST_KILLS"])
            with before.open("a") as file:
                file.write("x")
            if before.stat().st_size <= 3:
                os.kill(os.getpid(), signal.SIGKILL)
        yield from frames

    @contextmanager
    def hostile(extractor, video, *rest):
        with wanted_frames(extractor, video, *rest) as wanted:
            yield wanted._replace(frames=after_the_first(wanted.frames, Path(video)))

    decoder.VideoExtractor._wanted_frames = hostile


PATCHES = {
    "rayclip.session.resources": small_groups,
    "rayclip.media.watchdog": impatience,
    "rayclip.actors.decoder": hostility,
}

"""


def hostile_environment(folder: Path, videos_per_task: int) -> dict[str, str]:
    """The environment of a command in whose processes such videos are harmful.

    Args:
        folder: gets the module, and a file ``kills`` with a byte for each process that killed
            itself; a fourth does not.
        videos_per_task: how many videos a task has.
    """
    (folder / "sitecustomize.py").write_text(HOSTILITY + PATCH_ON_IMPORT)
    return {
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
        "TEST_GROUP": str(videos_per_task),
        "TEST_KILLS": str(folder / "kills"),
    }
