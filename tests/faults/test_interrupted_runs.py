"""Interrupts at any moment of a run, of the command and in somebody's notebook."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import shapes
from chaos_interrupts import random_interrupt
from long_video import repeated

DEADLINE_S = 120
RUN_S = {"none": 4.0, "local": 9.0}  # about what these runs take

SEEDS = (2, 12)  # of interrupts after 9 % and 27 % of a run; later ones are in other tests

CELLS_S = [0.3, 4.0]  # after so long, each cell is interrupted

NOTEBOOK = """
import gc, json, signal, sys, threading
import psutil
import rayclip

def memory_mb():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4 // 1024

def extract(video):
    rayclip.extract(
        [video], model_name="demo", device="cpu", address="none",
        on_extraction="save_numpy", output_path=sys.argv[4], overwrite=True,
    )

def left():
    children = len(psutil.Process().children())
    return threading.active_count(), children, memory_mb()

short, long, delays_s = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
signal.signal(signal.SIGINT, signal.default_int_handler)  # background scripts ignore it
extract(short)  # imports what all cells need
after = [(None, *left())]
for delay_s in delays_s:
    main = threading.main_thread().ident
    timer = threading.Timer(delay_s, signal.pthread_kill, (main, signal.SIGINT))
    timer.start()
    was_interrupted = False
    try:
        extract(long)
    except KeyboardInterrupt as error:
        sys.last_value = error  # notebooks keep it, with all its frames
        was_interrupted = True
    timer.join()
    after.append((was_interrupted, *left()))
print(json.dumps(after))
"""


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    paths = [folder / f"clip{number}.mp4" for number in range(4)]
    for number, path in enumerate(paths):
        shapes.write_video(path, [("red", "circle")], seconds_per_scene=2.0, seed=number)
    return paths


@pytest.mark.ray
@pytest.mark.parametrize("address", RUN_S)
@pytest.mark.parametrize("seed", SEEDS)
def test_an_interrupt_at_any_moment_ends_the_command_in_order(
    address: str, seed: int, clips: list[Path], tmp_path: Path
) -> None:
    """``scripts/chaos/chaos.py --interrupts`` does so for as long as you like."""
    rng = random.Random(seed)
    outcome = random_interrupt(clips, tmp_path / "out", address, RUN_S[address], rng)
    assert not outcome.wrong


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="needs /proc")
def test_interrupted_cells_of_a_notebook_leave_nothing(clips: list[Path], tmp_path: Path) -> None:
    long = repeated(clips[0], tmp_path / "long.mp4", 180)  # six minutes
    words = [clips[0], long, json.dumps(CELLS_S), tmp_path / "out"]
    ended = subprocess.run(
        [sys.executable, "-c", NOTEBOOK, *words],
        # glibc keeps what threads have freed, in as many arenas as there were threads at once
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=3 * DEADLINE_S,
    )
    assert ended.returncode == 0, ended.stderr
    cells = json.loads(ended.stdout)
    interrupted, threads, children, megabytes = zip(*cells, strict=True)
    assert interrupted == (None, *[True] * len(CELLS_S))
    assert not any(children)
    assert threads[-1] <= threads[0]
    assert megabytes[-1] < megabytes[0] + 20
