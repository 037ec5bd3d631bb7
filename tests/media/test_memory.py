"""What one video may take of memory, and what becomes of those that want more."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import bombs
import pytest

from rayclip.errors import BadVideo
from rayclip.media.memory import MemoryLimit, private_bytes
from rayclip.media.watchdog import HUNG_STATUS, Watchdog

MB = 2**20
GB2 = 2**31
DEADLINE_S = 60.0
UNREACHED = 2**60

needs_proc = pytest.mark.skipif(not private_bytes(), reason="the system has no /proc")


@contextmanager
def limit(most_growth: int, most: int = UNREACHED) -> Iterator[tuple[MemoryLimit, list[str]]]:
    said: list[str] = []
    memory = MemoryLimit(most_growth, most, said.append)
    try:
        yield memory, said
    finally:
        memory.close()


def taken(size: int, kind: int = mmap.MAP_PRIVATE) -> mmap.mmap:
    """Memory of this process that goes back to the system at once when it is closed."""
    block = mmap.mmap(-1, size, kind | mmap.MAP_ANONYMOUS)
    for place in range(0, size, mmap.PAGESIZE):
        block[place] = 1
    return block


def wait_for(happened: Callable[[], object]) -> None:
    wait = threading.Event()
    for _ in range(int(DEADLINE_S / 0.01)):
        if happened():
            return
        wait.wait(0.01)
    raise AssertionError("it never happened")


@needs_proc
def test_memory_of_ones_own_counts_and_what_is_shared_does_not() -> None:
    before = private_bytes()
    with taken(64 * MB):
        assert private_bytes() - before > 48 * MB
    with taken(64 * MB, mmap.MAP_SHARED):
        assert private_bytes() - before < 48 * MB


@needs_proc
def test_a_video_that_takes_too_much_is_given_up_at_the_next_call() -> None:
    with limit(64 * MB) as (memory, said):
        watchdog = Watchdog(DEADLINE_S, said.append, memory)
        with watchdog.watching("a.mp4"), taken(128 * MB):
            wait_for(lambda: memory.is_exceeded)
            with (
                pytest.raises(BadVideo, match="decoding takes more than 64 MB") as caught,
                watchdog,
            ):
                pytest.fail("this call must not begin")
        watchdog.close()
    assert (caught.value.stage, caught.value.code) == ("decode", "too_much_memory")
    assert said == []


@needs_proc
def test_what_a_process_had_before_is_not_the_fault_of_a_video() -> None:
    with (
        taken(128 * MB),
        limit(64 * MB) as (memory, _),
        memory.watching("a.mp4"),
        taken(8 * MB),
    ):
        pass_looks()
        assert not memory.is_exceeded


@needs_proc
def test_the_next_video_begins_anew() -> None:
    with limit(64 * MB) as (memory, _):
        with memory.watching("a.mp4"), taken(128 * MB):
            wait_for(lambda: memory.is_exceeded)
        with memory.watching("b.mp4"):
            pass_looks()
            assert not memory.is_exceeded


@needs_proc
def test_a_process_that_grows_too_large_is_told_once_by_the_name_of_the_video() -> None:
    with limit(UNREACHED, most=private_bytes() + 64 * MB) as (memory, said):
        with memory.watching("a.mp4"), taken(128 * MB):
            wait_for(lambda: said)
        assert memory._thread is not None
        memory._thread.join(DEADLINE_S)
    (sentence,) = said
    assert sentence.startswith("rayclip: a.mp4: decoding it has brought this process to ")


@needs_proc
def test_its_thread_ends_with_it() -> None:
    before = set(threading.enumerate())
    with limit(UNREACHED) as (memory, _):
        assert set(threading.enumerate()) == before
        for _ in range(2):
            with memory.watching("a.mp4"):
                assert len(set(threading.enumerate()) - before) == 1
    assert set(threading.enumerate()) == before


def pass_looks() -> None:
    """Wait until another limit has looked some times."""
    with limit(-1) as (clock, _):
        for _ in range(3):
            with clock.watching("the clock"):
                wait_for(lambda: clock.is_exceeded)


# ---- crafted files, in processes of their own ----

CLAIMS: dict[str, bombs.Make] = {
    "an-index-of-a-billion-pictures.mp4": lambda: bombs.an_index_of(10**9),
    "a-table-of-a-billion-sizes.mp4": lambda: bombs.an_index_of(10**9, size=0),
    "a-run-of-a-billion-pictures.mp4": lambda: bombs.fragments_of(10**9, 1),
    "a-box-of-a-terabyte.mp4": bombs.a_box_of_a_terabyte,
    "a-codec-header-of-a-terabyte.mkv": bombs.a_codec_header_of_a_terabyte,
    "pictures-of-131072x131072.mkv": bombs.pictures_of_sixteen_billion_pixels,
    "65535x65535.gif": lambda: bombs.a_gif(65535, 2),
    "16000x16000.gif": lambda: bombs.a_gif(16000, 2),
    "16000x16000.png": lambda: bombs.a_png_of_sixteen_bits(16000),
}


@needs_proc
def test_what_is_only_claimed_costs_nothing(tmp_path: Path) -> None:
    for name, make in CLAIMS.items():
        (tmp_path / name).write_bytes(make())
    ended = bombs.decoded(*(tmp_path / name for name in CLAIMS))
    assert len(ended) == len(CLAIMS)
    for name, one in zip(CLAIMS, ended, strict=True):
        assert (one.status, one.frames) == (0, 0), name
        assert one.code is not None, name
        assert one.peak < 200 * MB, name


BOMBS: dict[str, tuple[str, bombs.Make]] = {
    "200 million pictures without bytes": ("a.mp4", lambda: bombs.fragments_of(10**6, 200)),
    "an index of 50 million pictures": ("a.mp4", lambda: bombs.an_index_of(50_000_000)),
    "pictures of 8192 x 8192": ("a.gif", lambda: bombs.a_gif(bombs.SIDE, 1)),
    "400 pictures in a packet": ("a.mkv", lambda: bombs.many_pictures_in_a_packet(400, 4096)),
}


@needs_proc
@pytest.mark.parametrize("name", BOMBS)
def test_no_file_makes_a_process_grow_without_end(name: str, tmp_path: Path) -> None:
    file, make = BOMBS[name]
    (tmp_path / file).write_bytes(make())
    assert (tmp_path / file).stat().st_size < 10 * MB
    (ended,) = bombs.decoded(tmp_path / file)
    if ended.status == 0:
        assert ended.frames or ended.code == "too_much_memory"
    else:
        assert ended.status == HUNG_STATUS
    # It is below 2 GiB where a core is free for the look; else libav may double a table before it.
    assert 500 * MB < ended.peak < 2 * GB2, "what is no bomb proves nothing"


@needs_proc
@pytest.mark.parametrize(
    ("name", "make", "most_growth", "most", "status", "code"),
    [
        ("a.gif", lambda: bombs.a_gif(2048, 3), GB2, GB2, 0, None),
        ("a.gif", lambda: bombs.a_gif(2048, 99), 8 * MB, GB2, 0, "too_much_memory"),
        ("a.gif", lambda: bombs.a_gif(2048, 99), GB2, 48 * MB, HUNG_STATUS, None),
        ("a.png", lambda: bombs.a_png_with_a_long_text(GB2), 64 * MB, 256 * MB, HUNG_STATUS, None),
    ],
    ids=["usual", "one that takes more", "a process that has more", "in one call"],
)
def test_what_takes_more_than_it_may_is_given_up_or_ends_its_process(
    name: str,
    make: bombs.Make,
    most_growth: int,
    most: int,
    status: int,
    code: str | None,
    tmp_path: Path,
) -> None:
    """With limits that are reached in no time."""
    (tmp_path / name).write_bytes(make())
    (ended,) = bombs.decoded(tmp_path / name, most_growth=most_growth, most=most)
    assert (ended.status, ended.code) == (status, code)
