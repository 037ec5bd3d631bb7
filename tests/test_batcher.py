"""Full batches out of chunks from anywhere."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from rayclip.actors.batcher import Batcher, BatchStats

Frames = NDArray[np.uint8]
Features = NDArray[np.float32]

DEADLINE_S = 10.0
BATCH_SIZE = 4
POISON = 99


class Echo:
    """A model whose feature of a frame is the number in the frame."""

    batch_size = BATCH_SIZE
    passes_at_once = 1

    def __init__(self) -> None:
        self.batches: list[list[int]] = []

    def encode_image(self, images: Frames) -> Features:
        numbers = images[:, 0, 0, 0]
        self.batches.append(numbers.tolist())
        if POISON in numbers:
            raise ValueError("a frame that this model cannot stand")
        return numbers.astype(np.float32)[:, None]


def chunk(*numbers: int) -> Frames:
    return np.array(numbers, np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)


def run(*chunks: Sequence[int]) -> tuple[list[object], Echo, BatchStats]:
    """What becomes of chunks that are all queued before the model is there.

    Returns:
        for each chunk its numbers or its exception; the model; the statistics.
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


def test_a_batcher_goes_on_after_a_bad_chunk() -> None:
    with running(Echo) as batcher:
        assert isinstance(batcher.submit(chunk(POISON)).exception(DEADLINE_S), ValueError)
        assert batcher.submit(chunk(1)).result(DEADLINE_S).tolist() == [[1]]


def test_what_prevents_loading_reaches_every_submit_before_and_after() -> None:
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


def test_ready_gives_the_model() -> None:
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


# ---- statistics ----


def test_nothing_is_done_at_first() -> None:
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


def test_statistics_of_several_encoders_add_up() -> None:
    assert BatchStats(1, 3, 4, 1, 0.5) + BatchStats(2, 8, 8, 0, 1.0) == BatchStats(
        3, 11, 12, 1, 1.5
    )


def test_as_many_passes_run_side_by_side_as_are_of_use() -> None:
    together = threading.Barrier(2, timeout=DEADLINE_S)

    class TwoAtOnce(Echo):
        passes_at_once = 2

        def encode_image(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
            together.wait()  # breaks, and with it the test, if the other pass never comes
            return super().encode_image(images)

    batcher = Batcher(TwoAtOnce)
    frames = chunk(*range(2 * BATCH_SIZE))
    features = batcher.submit(frames).result(DEADLINE_S)
    np.testing.assert_array_equal(features, Echo().encode_image(frames))
    batcher.close()
