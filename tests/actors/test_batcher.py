"""Batches are filled across all queued chunks."""

import gc
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from rayclip.actors.batcher import Batcher
from rayclip.actors.device_faults import BlamedFrames
from rayclip.actors.messages import Features, Frame
from rayclip.errors import RunStopped
from rayclip.io.crash_log import Cause, CrashLog, Death, Key, take_death
from rayclip.report.run_stats import BatchStats

DEADLINE_S = 10.0
BATCH_SIZE = 4
POISON = 99


def numbers_in(images: Sequence[Frame]) -> NDArray[np.uint8]:
    return np.array([image[0, 0, 0] for image in images])


class Echo:
    """A model whose feature of a frame is the number in the frame."""

    batch_size = BATCH_SIZE
    passes_at_once = 1
    notes = ()

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.is_closed = False

    def close(self) -> None:
        self.is_closed = True

    def encode_image(self, images: Sequence[Frame]) -> Features:
        numbers = numbers_in(images)
        self.batches.append(numbers.tolist())
        if POISON in numbers:
            raise ValueError("a frame that this model cannot stand")
        return numbers.astype(np.float32)[:, None]


def chunk(*numbers: int) -> list[Frame]:
    return [np.full((2, 2, 3), number, np.uint8) for number in numbers]


def run(*chunks: Sequence[int]) -> tuple[list[object], Echo, BatchStats]:
    """Run chunks that are all queued before the model is loaded.

    Returns:
        For each chunk, its numbers or its exception; the model; the statistics.
    """
    model, gate = Echo(), threading.Event()

    def load() -> Echo:
        assert gate.wait(DEADLINE_S)
        return model

    batcher = Batcher(load, linger_s=0)
    futures = [batcher.submit(chunk(*numbers)) for numbers in chunks]
    gate.set()
    batcher.close()
    outcomes: list[object] = [
        future.exception(DEADLINE_S) or future.result()[:, 0].tolist() for future in futures
    ]
    return outcomes, model, batcher.stats


@contextmanager
def running(load: Callable[[], Echo], linger_s: float = 0) -> Iterator[Batcher]:
    batcher = Batcher(load, linger_s)
    yield batcher
    batcher.close()


# ---- batches ----


@pytest.mark.parametrize(
    ("chunks", "batches"),
    [
        ([[1]], [[1]]),
        ([[1, 2], [3, 4]], [[1, 2, 3, 4]]),
        ([[1, 2, 3], [4, 5, 6], [7, 8]], [[1, 2, 3, 4], [5, 6, 7, 8]]),
        ([[1, 2, 3], [4], [5]], [[1, 2, 3, 4], [5]]),
        ([[1, 2, 3, 4, 5, 6, 7, 8, 9]], [[1, 2, 3, 4], [5, 6, 7, 8], [9]]),
        ([[1], [2, 3, 4, 5, 6, 7], [8, 9]], [[1, 2, 3, 4], [5, 6, 7, 8], [9]]),
    ],
)
def test_batches_are_filled_across_chunks(
    chunks: list[list[int]], batches: list[list[int]]
) -> None:
    assert run(*chunks)[1].batches == batches


@pytest.mark.parametrize(
    "chunks",
    [
        [[1]],
        [[1, 2], [3, 4]],
        [[1, 2, 3], [4, 5, 6], [7, 8]],
        [[1, 2, 3, 4, 5, 6, 7, 8, 9]],
        [[3], [2], [1], [6, 5, 4, 3, 2, 1], [9]],
    ],
)
def test_each_chunk_gets_its_own_features_in_order(chunks: list[list[int]]) -> None:
    assert run(*chunks)[0] == chunks


def test_features_are_float32_with_one_row_for_each_frame() -> None:
    with running(Echo) as batcher:
        features = batcher.submit(chunk(1, 2, 3, 4, 5)).result(DEADLINE_S)
    assert features.shape == (5, 1)
    assert features.dtype == np.float32


def test_a_batch_that_is_not_full_waits_for_one_more_chunk() -> None:
    model = Echo()
    with running(lambda: model, linger_s=DEADLINE_S) as batcher:
        first = batcher.submit(chunk(1, 2))
        assert not wait([first], timeout=0.05).done
        second = batcher.submit(chunk(3, 4))
        assert wait([first, second], DEADLINE_S / 2).not_done == set()
    assert model.batches == [[1, 2, 3, 4]]


def test_no_batch_waits_for_more_frames_once_somebody_waits_for_it() -> None:
    model = Echo()
    with running(lambda: model, linger_s=DEADLINE_S) as batcher:
        batcher.flush()  # nothing is queued
        first = batcher.submit(chunk(1, 2))
        assert not wait([first], timeout=0.05).done
        batcher.flush()
        assert wait([first], DEADLINE_S / 2).done
        second = batcher.submit(chunk(3))
        assert not wait([second], timeout=0.05).done
    assert model.batches == [[1, 2], [3]]


def test_those_behind_frames_that_somebody_waits_for_wait_as_ever() -> None:
    model, gate = Echo(), threading.Event()
    with running(lambda: gate.wait(DEADLINE_S) and model, linger_s=DEADLINE_S) as batcher:
        first = batcher.submit(chunk(1, 2))
        batcher.flush()
        second = batcher.submit(chunk(*range(BATCH_SIZE)))
        gate.set()
        assert wait([first], DEADLINE_S / 2).done
        assert not wait([second], timeout=0.05).done
    assert [len(batch) for batch in model.batches] == [BATCH_SIZE, 2]


def test_a_lone_chunk_does_not_wait_for_others() -> None:
    with running(Echo) as batcher:
        assert batcher.submit(chunk(1)).result(DEADLINE_S).tolist() == [[1]]


def test_chunks_of_several_threads_get_their_own_features() -> None:
    outcomes: dict[int, list[list[float]]] = {}
    with running(Echo) as batcher:

        def ask(number: int) -> None:
            outcomes[number] = batcher.submit(chunk(number, number)).result(DEADLINE_S).tolist()

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE_S)
    assert outcomes == {number: [[number], [number]] for number in range(20)}


# ---- failures ----


@pytest.mark.parametrize(
    "chunks",
    [
        [[1], [POISON], [2]],
        [[POISON], [1], [2]],
        [[1], [2], [POISON]],
        [[1], [POISON, 3, 4, 5, 6, 7, 8, 9], [2]],
        [[1], [3, 4, 5, 6, 7, POISON], [2]],
        [[1], [POISON], [POISON], [2]],
    ],
)
def test_a_bad_chunk_in_a_mixed_batch_fails_alone(chunks: list[list[int]]) -> None:
    for numbers, outcome in zip(chunks, run(*chunks)[0], strict=True):
        if POISON in numbers:
            assert isinstance(outcome, ValueError)
        else:
            assert outcome == numbers


def test_the_rest_of_a_bad_chunk_is_not_encoded() -> None:
    _, model, _ = run([POISON, 1, 2, 3, 4, 5, 6, 7])
    assert model.batches == [[POISON, 1, 2, 3]]


def test_a_batcher_continues_after_a_bad_chunk() -> None:
    with running(Echo) as batcher:
        assert isinstance(batcher.submit(chunk(POISON)).exception(DEADLINE_S), ValueError)
        assert batcher.submit(chunk(1)).result(DEADLINE_S).tolist() == [[1]]


def test_an_error_while_loading_fails_every_submit_before_and_after() -> None:
    gate, reason = threading.Event(), OSError("no such weights")

    def load() -> Echo:
        assert gate.wait(DEADLINE_S)
        raise reason

    with running(load) as batcher:
        before = [batcher.submit(chunk(1)), batcher.submit(chunk(2))]
        gate.set()
        assert batcher.ready.exception(DEADLINE_S) is reason
        after = batcher.submit(chunk(3))
        assert [future.exception(DEADLINE_S) for future in (*before, after)] == [reason] * 3


# ---- loading and closing ----


def test_ready_returns_the_model() -> None:
    model = Echo()
    with running(lambda: model) as batcher:
        assert batcher.ready.result(DEADLINE_S) is model


def test_chunks_can_be_queued_while_the_model_is_loaded() -> None:
    gate = threading.Event()

    def load() -> Echo:
        assert gate.wait(DEADLINE_S)
        return Echo()

    with running(load) as batcher:
        future = batcher.submit(chunk(1))
        assert not future.done()
        gate.set()
        assert future.result(DEADLINE_S).tolist() == [[1]]


def test_closing_encodes_what_is_queued_first() -> None:
    with running(Echo, linger_s=DEADLINE_S) as batcher:
        futures = [batcher.submit(chunk(number)) for number in range(6)]
    assert [future.done() for future in futures] == [True] * 6


def test_an_internal_error_fails_all_waiting_chunks() -> None:
    class Flat(Echo):
        def encode_image(self, images: Sequence[Frame]) -> Features:
            features = super().encode_image(images)
            return features if len(images) == BATCH_SIZE else features[:, 0]

    with running(Flat) as batcher:
        futures = [batcher.submit(chunk(1, 2)), batcher.submit(chunk(3))]
        for future in futures:
            assert isinstance(future.exception(DEADLINE_S), IndexError)
        assert batcher.submit(chunk(*range(BATCH_SIZE))).result(DEADLINE_S).shape[0] == BATCH_SIZE


# ---- statistics ----


def test_statistics_start_at_zero() -> None:
    assert (BatchStats(), BatchStats().fill) == (BatchStats(0, 0, 0, 0, 0.0), 0.0)


def test_the_fill_of_batches_counts_no_padding() -> None:
    stats = run([1, 2, 3, 4, 5])[2]
    assert (stats.batches, stats.frames, stats.capacity, stats.fill) == (2, 5, 8, 5 / 8)


@pytest.mark.parametrize(
    ("chunks", "mixed"),
    [([[1, 2, 3, 4, 5]], 0), ([[1, 2], [3, 4]], 1), ([[1, 2, 3], [4, 5, 6], [7, 8]], 2)],
)
def test_batches_of_several_chunks_are_counted(chunks: list[list[int]], mixed: int) -> None:
    assert run(*chunks)[2].mixed == mixed


def test_batches_that_failed_are_not_counted() -> None:
    stats = run([1, 2], [POISON])[2]
    assert (stats.batches, stats.frames) == (1, 2)


def test_the_time_in_the_model_is_counted() -> None:
    assert run([1])[2].busy_s > 0


def test_concurrent_passes_have_more_room_than_wall_time() -> None:
    class Twofold(Echo):
        passes_at_once = 2

    with running(Twofold) as batcher:
        batcher.submit(chunk(1, 2)).result(DEADLINE_S)
        batcher.submit(chunk(3)).result(DEADLINE_S)  # the numbers of the first are in by now
        stats = batcher.stats
    assert 0 < stats.wall_s == stats.room_s / 2


def test_statistics_of_several_encoders_add_up() -> None:
    assert BatchStats(1, 3, 4, 1, 0.5) + BatchStats(2, 8, 8, 0, 1.0) == BatchStats(
        3, 11, 12, 1, 1.5
    )


def test_passes_run_concurrently_if_the_model_allows_it() -> None:
    together = threading.Barrier(2, timeout=DEADLINE_S)

    class TwoAtOnce(Echo):
        passes_at_once = 2

        def encode_image(self, images: Sequence[Frame]) -> Features:
            together.wait()  # breaks, and with it the test, if the other pass never comes
            return super().encode_image(images)

    batcher = Batcher(TwoAtOnce)
    frames = chunk(*range(2 * BATCH_SIZE))
    features = batcher.submit(frames).result(DEADLINE_S)
    np.testing.assert_array_equal(features, Echo().encode_image(frames))
    batcher.close()


# ---- a device without enough memory ----


class Small(Echo):
    """A device with memory for at most ``fits`` frames."""

    def __init__(self, fits: int, passes_at_once: int = 1) -> None:
        super().__init__()
        self.fits = fits
        self.passes_at_once = passes_at_once
        self._first_ones = threading.Barrier(passes_at_once, timeout=DEADLINE_S)

    def encode_image(self, images: Sequence[Frame]) -> Features:
        if len(images) > self.fits:
            self._first_ones.wait()
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        return super().encode_image(images)


@pytest.mark.parametrize(
    ("fits", "batches"),
    [
        (4, [[1, 2, 3, 4], [5, 6, 7, 8], [9]]),
        (3, [[1, 2], [3, 4], [5, 6], [7, 8], [9]]),
        (1, [[1], [2], [3], [4], [5], [6], [7], [8], [9]]),
    ],
)
def test_batches_are_halved_permanently_until_they_fit_in_memory(
    fits: int, batches: list[list[int]]
) -> None:
    model = Small(fits)
    with running(lambda: model) as batcher:
        sent = [[1, 2, 3, 4, 5, 6], [7], [8, 9]]
        futures = [batcher.submit(chunk(*numbers)) for numbers in sent]
        assert [future.result(DEADLINE_S)[:, 0].tolist() for future in futures] == sent
        assert batcher.stats.capacity == len(batches) * model.batch_size
    assert model.batches == batches


def test_concurrent_passes_that_fail_halve_the_batch_once_with_one_note() -> None:
    model = Small(fits=2, passes_at_once=2)
    with running(lambda: model) as batcher:
        features = batcher.submit(chunk(*range(2 * BATCH_SIZE))).result(DEADLINE_S)
        notes = batcher.stats.notes
    assert features[:, 0].tolist() == list(range(2 * BATCH_SIZE))
    assert model.batch_size == 2
    assert notes == (
        f"An encoder (process {os.getpid()}) has no memory for batches of 4 frames: "
        "it uses batches of 2 from now on.",
    )


def test_frames_that_do_not_fit_alone_fail_and_the_others_do_not() -> None:
    class Choosy(Echo):
        def encode_image(self, images: Sequence[Frame]) -> Features:
            if POISON in numbers_in(images):
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return super().encode_image(images)

    with running(Choosy) as batcher:
        futures = [batcher.submit(chunk(*numbers)) for numbers in ([1, 2], [POISON], [3])]
        assert isinstance(futures[1].exception(DEADLINE_S), torch.OutOfMemoryError)
        assert [futures[i].result(DEADLINE_S)[:, 0].tolist() for i in (0, 2)] == [[1, 2], [3]]


# ---- a device that fails for good ----

ILLEGAL = "CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`"


class Fragile(Echo):
    """A device that one frame breaks permanently."""

    broken = False

    def encode_image(self, images: Sequence[Frame]) -> Features:
        self.broken = self.broken or POISON in numbers_in(images)
        if self.broken:
            raise torch.AcceleratorError(ILLEGAL)
        return super().encode_image(images)


class Ended(BaseException):
    """Raised in place of the end of the process."""


class Log(CrashLog):
    """A crash log without a file, with earlier deaths."""

    def __init__(self, *deaths: Sequence[str]) -> None:
        self.deaths = tuple(
            Death(Cause.DEVICE, "CUDA error: unknown", tuple(names)) for names in deaths
        )
        self.tracked: list[set[object]] = []
        self.cleared: list[object] = []

    @contextmanager
    def tracking(self, *keys: Key) -> Iterator[None]:
        self.tracked.append(set(keys))
        yield

    def clear(self, key: Key) -> None:
        self.cleared.append(key)


def test_each_pass_is_tracked_with_the_chunks_in_it() -> None:
    log, gate = Log(), threading.Event()
    model = Echo()

    def load() -> Echo:
        assert gate.wait(DEADLINE_S)
        return model

    batcher = Batcher(load, 0, log)
    for name, numbers in {"a": [1, 2, 3], "b": [4, 5], "c": [6]}.items():
        batcher.submit(chunk(*numbers), name)
    gate.set()
    batcher.close()
    assert log.tracked == [{"a", "b"}, {"b", "c"}]


def test_a_poisoned_device_ends_the_process_while_the_chunks_are_tracked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ended = threading.Event()

    def end(status: int) -> None:
        assert status == 1
        ended.set()
        raise Ended

    monkeypatch.setattr(os, "_exit", end)
    path = str(tmp_path / "log")
    batcher = Batcher(Fragile, crash_log=CrashLog(path))
    batcher.submit(chunk(POISON), "a")
    assert ended.wait(DEADLINE_S)
    death = take_death(path)
    assert (death.cause, death.busy) == (Cause.DEVICE, ("a",))
    assert death.reason == ILLEGAL.splitlines()[0]


def test_a_suspect_shares_no_pass_and_runs_alone() -> None:
    under_way: list[set[int]] = []

    class Watched(Echo):
        passes_at_once = 2

        def encode_image(self, images: Sequence[Frame]) -> Features:
            numbers = set(numbers_in(images).tolist())
            under_way.append(numbers)
            time.sleep(0.02)
            if 50 in numbers:
                assert under_way == [numbers]
            features = super().encode_image(images)
            under_way.remove(numbers)
            return features

    model, gate = Watched(), threading.Event()

    def load() -> Echo:
        assert gate.wait(DEADLINE_S)
        return model

    batcher = Batcher(load, 0, Log(["suspect"]))
    sent = {"a": [1, 2], "suspect": [50, 50, 50, 50, 50], "b": [3], "c": [4, 5, 6, 7, 8]}
    futures = {name: batcher.submit(chunk(*numbers), name) for name, numbers in sent.items()}
    gate.set()
    batcher.close()
    assert {name: future.result()[:, 0].tolist() for name, future in futures.items()} == sent
    assert [batch for batch in model.batches if 50 in batch] == [[50] * 4, [50]]


def test_blamed_frames_are_refused_and_never_reach_the_model() -> None:
    model, log = Echo(), Log(["a", "b"], ["a"])
    batcher = Batcher(lambda: model, 0, log)
    blamed, suspect = batcher.submit(chunk(1), "a"), batcher.submit(chunk(2), "b")
    assert suspect.result(DEADLINE_S).tolist() == [[2]]
    error = blamed.exception(DEADLINE_S)
    batcher.close()
    assert isinstance(error, BlamedFrames)
    assert str(error) == "these frames ended 2 of its processes (CUDA error: unknown)"
    assert model.batches == [[2]]
    assert log.cleared == ["b"]


# ---- the end ----


def test_a_closed_batcher_leaves_nothing_behind() -> None:
    models: list[Echo] = []

    def load() -> Echo:
        models.append(Echo())
        return models[0]

    before = set(threading.enumerate())
    batcher = Batcher(load)
    assert batcher.submit(chunk(1)).result(DEADLINE_S).tolist() == [[1.0]]
    batcher.close()
    assert set(threading.enumerate()) == before
    assert models[0].is_closed
    held = weakref.ref(models.pop())
    gc.collect()
    assert held() is None


def test_what_is_queued_when_a_batcher_is_aborted_is_not_encoded() -> None:
    is_under_way, may_end = threading.Event(), threading.Event()

    class Slow(Echo):
        def encode_image(self, images: Sequence[Frame]) -> Features:
            is_under_way.set()
            assert may_end.wait(DEADLINE_S)
            return super().encode_image(images)

    model = Slow()
    batcher = Batcher(lambda: model, linger_s=0.0)
    first = batcher.submit(chunk(*range(BATCH_SIZE)))
    assert is_under_way.wait(DEADLINE_S)
    later = [batcher.submit(chunk(number)) for number in range(5)]
    batcher.abort()
    may_end.set()
    assert len(first.result(DEADLINE_S)) == BATCH_SIZE
    for future in later:
        with pytest.raises(RunStopped):
            future.result(DEADLINE_S)
