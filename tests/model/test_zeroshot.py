"""Frames described by texts: the numbers, the printed table, the CSV file, Kinetics."""

import csv
import io
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rayclip.errors import UsageError
from rayclip.model import zeroshot
from rayclip.model.checkpoint import openai_clip
from rayclip.model.zeroshot import Prediction, ZeroShot, format_table, predictions_csv, prompts

LOGIT_SCALE = 100.0
SHAPES = [  # frames, texts, features
    (1, 1, 4),
    (1, 400, 64),
    (7, 6, 3),
    (13, 23, 512),
    (40, 5, 64),
]


def random_features(count: int, dim: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((count, dim)) * 7 + 1).astype(np.float32)


def random_case(frames: int, texts: int, dim: int) -> tuple[ZeroShot, np.ndarray]:
    names = tuple(f"text {number}" for number in range(texts))
    shown = ZeroShot(names, random_features(texts, dim, seed=1), LOGIT_SCALE)
    return shown, random_features(frames, dim, seed=2)


def with_logits(*logits: float) -> ZeroShot:
    """Texts a, b, c ... whose logits are these, in whole numbers, for the frame (1, 0)."""
    largest = max(map(abs, logits))
    features = [(logit, math.sqrt(largest**2 - logit**2)) for logit in logits]
    return ZeroShot(tuple("abcdefgh"[: len(logits)]), np.array(features, np.float32), largest)


FRAME = np.array([[1, 0]], np.float32)


def plainly(frame: Sequence[float], shown: ZeroShot, most: int) -> list[Prediction]:
    """One frame with Python's own numbers."""
    logits = []
    for text in shown.text_features.tolist():
        dot = math.fsum(a * b for a, b in zip(frame, text, strict=True))
        logits.append(shown.logit_scale * dot / math.hypot(*frame) / math.hypot(*text))
    total = math.fsum(math.exp(logit - max(logits)) for logit in logits)
    best_first = sorted(range(len(logits)), key=lambda index: -logits[index])
    return [
        Prediction(
            rank, shown.texts[index], logits[index], math.exp(logits[index] - max(logits)) / total
        )
        for rank, index in enumerate(best_first[:most], start=1)
    ]


def with_torch(clip: np.ndarray, shown: ZeroShot, most: int) -> list[list[Prediction]]:
    """The steps of video_features: double, softmax, sort, gather."""
    frames = F.normalize(torch.from_numpy(clip).double())
    texts = F.normalize(torch.from_numpy(shown.text_features).double())
    logits = shown.logit_scale * frames @ texts.T
    softmax = F.softmax(logits, dim=-1)
    order = torch.sort(softmax, dim=-1, descending=True).indices[:, :most]
    table = zip(order, logits.gather(1, order), softmax.gather(1, order), strict=True)
    return [
        [
            Prediction(rank + 1, shown.texts[index[rank]], float(logit[rank]), float(share[rank]))
            for rank in range(len(index))
        ]
        for index, logit, share in table
    ]


def assert_close(ours: list[list[Prediction]], theirs: list[list[Prediction]]) -> None:
    assert [[p[:2] for p in frame] for frame in ours] == [
        [p[:2] for p in frame] for frame in theirs
    ]
    for field in (2, 3):
        np.testing.assert_allclose(
            [[p[field] for p in frame] for frame in ours],
            [[p[field] for p in frame] for frame in theirs],
            rtol=1e-10,
            atol=1e-12,
        )


# ---- numbers ----


@pytest.mark.parametrize(("frames", "texts", "dim"), SHAPES)
def test_predictions_are_those_of_a_plain_computation(frames: int, texts: int, dim: int) -> None:
    shown, clip = random_case(frames, texts, dim)
    assert_close(shown.top(clip), [plainly(frame, shown, 5) for frame in clip.tolist()])


@pytest.mark.parametrize(("frames", "texts", "dim"), SHAPES)
def test_predictions_are_those_of_video_features(frames: int, texts: int, dim: int) -> None:
    shown, clip = random_case(frames, texts, dim)
    assert_close(shown.top(clip), with_torch(clip, shown, 5))


def test_the_logit_is_the_scaled_cosine_and_the_probability_is_the_softmax_of_all() -> None:
    (predictions,) = with_logits(3, 5, -4).top(FRAME, k=2)
    total = math.exp(3) + math.exp(5) + math.exp(-4)
    assert predictions == [
        Prediction(1, "b", pytest.approx(5, rel=1e-7), pytest.approx(math.exp(5) / total)),
        Prediction(2, "a", pytest.approx(3, rel=1e-6), pytest.approx(math.exp(3) / total)),
    ]


@pytest.mark.parametrize(
    ("texts", "most", "count"),
    [(1, 5, 1), (2, 5, 2), (4, 5, 4), (5, 5, 5), (6, 5, 5), (6, 1, 1), (6, 6, 6), (6, 7, 6)],
)
def test_there_are_as_many_predictions_as_asked_for_or_as_texts(
    texts: int, most: int, count: int
) -> None:
    shown, clip = random_case(3, texts, 8)
    every = shown.top(clip, texts)
    assert shown.top(clip, most) == [predictions[:count] for predictions in every]
    assert [[p.rank for p in predictions] for predictions in shown.top(clip, most)] == [
        list(range(1, count + 1))
    ] * 3


def test_five_predictions_are_the_default() -> None:
    shown, clip = random_case(2, 9, 8)
    assert shown.top(clip) == shown.top(clip, 5)


def test_all_probabilities_of_a_frame_add_up_to_one() -> None:
    shown, clip = random_case(6, 50, 16)
    for predictions in shown.top(clip, 50):
        assert math.fsum(p.probability for p in predictions) == pytest.approx(1, abs=1e-14)


def test_a_single_text_is_certain() -> None:
    shown, clip = random_case(1, 1, 4)
    assert shown.top(clip)[0][0].probability == 1


def test_no_frames_have_no_predictions() -> None:
    shown, clip = random_case(1, 6, 4)
    assert shown.top(clip[:0]) == []


@pytest.mark.parametrize("dim", [3, 64, 509])
@pytest.mark.parametrize("frames", [1, 6])
def test_equal_texts_keep_their_order_in_any_position(frames: int, dim: int) -> None:
    four = ZeroShot(("0", "1", "2", "3"), random_features(4, dim, seed=1), LOGIT_SCALE)
    which = np.random.default_rng(0).integers(0, 4, 61)
    repeated = ZeroShot(tuple(map(str, range(61))), four.text_features[which], LOGIT_SCALE)
    clip = random_features(frames, dim, seed=2)
    for ours, best_first in zip(repeated.top(clip, 61), four.top(clip), strict=True):
        in_order = [str(i) for p in best_first for i in np.flatnonzero(which == int(p.label))]
        assert [p.label for p in ours] == in_order


def test_texts_that_are_certainly_wrong_are_still_in_the_order_of_their_logits() -> None:
    (predictions,) = with_logits(-3000, 4000, -2000, 0).top(FRAME)
    assert [p.label for p in predictions] == ["b", "d", "c", "a"]
    assert [p.probability for p in predictions] == [1, 0, 0, 0]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("logit_scale", [1e4, 1e300])
def test_probabilities_are_finite_at_huge_scales(logit_scale: float) -> None:
    shown = ZeroShot(("a", "b"), np.array([[-1, 0], [-1, 1e-3]], np.float32), logit_scale)
    (predictions,) = shown.top(FRAME)  # both logits are far below zero
    assert all(map(math.isfinite, (number for p in predictions for number in p[2:])))
    assert math.fsum(p.probability for p in predictions) == 1


@pytest.mark.parametrize("length", [1e-15, 1, 1e15])
def test_only_the_direction_of_a_feature_counts(length: float) -> None:
    shown, clip = random_case(4, 6, 8)
    longer = ZeroShot(shown.texts, shown.text_features * np.float32(length), LOGIT_SCALE)
    theirs = shown.top(clip)
    for ours in (longer.top(clip), shown.top(clip * np.float32(length))):
        assert [[p.label for p in frame] for frame in ours] == [
            [p.label for p in frame] for frame in theirs
        ]
        np.testing.assert_allclose(
            [[p.logit for p in frame] for frame in ours],
            [[p.logit for p in frame] for frame in theirs],
            rtol=1e-4,
        )


def test_logits_are_computed_in_double() -> None:
    nearly = np.float32(1) + np.finfo(np.float32).eps  # (1, 1) and (1, 1.0000001)
    shown = ZeroShot(("near", "same"), np.array([[nearly, 1], [1, 1]], np.float32), LOGIT_SCALE)
    (predictions,) = shown.top(np.ones((1, 2), np.float32))
    assert [p.label for p in predictions] == ["same", "near"]
    assert 0 < predictions[0].logit - predictions[1].logit < 1e-11


def test_input_features_are_not_modified() -> None:
    shown, clip = random_case(3, 6, 4)
    clip.flags.writeable = shown.text_features.flags.writeable = False
    before = clip.copy(), shown.text_features.copy()
    shown.top(clip)
    np.testing.assert_array_equal(clip, before[0])
    np.testing.assert_array_equal(shown.text_features, before[1])


# ---- long videos ----


@pytest.mark.parametrize("chunk_bytes", [1, 3_000, 20_000])
@pytest.mark.parametrize(("frames", "texts", "dim"), [(29, 1, 7), (29, 6, 64), (29, 23, 509)])
def test_a_frame_has_the_same_bits_however_the_video_is_cut(
    frames: int, texts: int, dim: int, chunk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, clip = random_case(frames, texts, dim)
    whole = shown.top(clip)
    monkeypatch.setattr(zeroshot, "CHUNK_BYTES", chunk_bytes)
    assert shown.top(clip) == whole


def test_features_in_fortran_order_give_the_same_bits() -> None:
    shown, clip = random_case(29, 6, 64)
    fortran = ZeroShot(shown.texts, np.asfortranarray(shown.text_features), LOGIT_SCALE)
    assert fortran.top(np.asfortranarray(clip)) == shown.top(clip)


@pytest.mark.parametrize(("texts", "dim"), [(2_000, 2), (2, 1_000)])
def test_a_long_video_takes_no_more_memory_than_a_chunk(
    texts: int, dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, clip = random_case(1_000, texts, dim)  # 8 to 16 MB in double
    monkeypatch.setattr(zeroshot, "CHUNK_BYTES", 1_000_000)
    tracemalloc.start()
    try:
        predictions = shown.top(clip, k=1)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(predictions) == 1_000
    assert peak - kept < 1_500_000


def test_the_chunk_is_under_a_hundred_megabytes() -> None:
    assert zeroshot.CHUNK_BYTES < 100e6


# ---- the table ----

TABLE = [
    Prediction(1, "a photo of yoga", 24.5678, 0.98765),
    Prediction(2, "ein Äpfelchen, “rot” | süß", -1.0, 0.0123),
    Prediction(3, "", 12345.0, 0.00004),
]


def test_the_table_is_that_of_video_features_to_the_letter() -> None:
    assert format_table(TABLE) == (
        "  Logits | Prob. | Label \n"
        "  24.568 | 0.988 | a photo of yoga\n"
        "  -1.000 | 0.012 | ein Äpfelchen, “rot” | süß\n"
        "12345.000 | 0.000 | \n"
        "\n"
    )


def test_the_table_of_a_frame_has_the_best_text_first() -> None:
    (predictions,) = with_logits(3, 5).top(FRAME)
    assert format_table(predictions) == (
        "  Logits | Prob. | Label \n   5.000 | 0.881 | b\n   3.000 | 0.119 | a\n\n"
    )


# ---- the CSV file ----


def test_the_csv_file_has_a_row_for_each_frame_and_rank() -> None:
    first = [Prediction(1, "a cat", 24.5, 0.75), Prediction(2, "a dog", -1.0, 0.1)]
    second = [Prediction(1, "a dog", 1e-05, 1.0)]
    assert predictions_csv(np.array([0.0, 33.366666666666667]), iter([first, second])) == (
        b"timestamp_ms,rank,label,logit,probability\n"
        b'0.0,1,"a cat",24.5,0.75\n'
        b'0.0,2,"a dog",-1.0,0.1\n'
        b'33.36666666666667,1,"a dog",1e-05,1.0\n'
    )


@pytest.mark.parametrize(
    "label",
    [
        "a photo of yoga",
        "red, green",
        'the "best" one',
        '"',
        "two\nlines",
        "two\r\nlines",
        "carriage\rreturn",
        "Äpfel, süß",
        "日本 🎬",
        "",
        " blanks ",
        "3.5",
    ],
)
def test_a_label_comes_back_from_the_csv_file_as_it_was(label: str) -> None:
    file = predictions_csv([40.0], [[Prediction(1, label, 1.5, 0.5)]])
    _, row = csv.reader(io.StringIO(file.decode("utf-8"), newline=""))
    assert row == ["40.0", "1", label, "1.5", "0.5"]


def test_numbers_come_back_from_the_csv_file_to_the_bit() -> None:
    shown, clip = random_case(20, 7, 16)
    timestamps_ms = np.arange(20) / 29.97 * 1000
    frames = shown.top(clip)
    file = predictions_csv(timestamps_ms, frames)
    rows = list(csv.DictReader(io.StringIO(file.decode("utf-8"), newline="")))
    assert [
        (
            float(r["timestamp_ms"]),
            int(r["rank"]),
            r["label"],
            float(r["logit"]),
            float(r["probability"]),
        )
        for r in rows
    ] == [
        (timestamp, *prediction)
        for timestamp, predictions in zip(timestamps_ms.tolist(), frames, strict=True)
        for prediction in predictions
    ]


def test_the_csv_file_of_no_frames_is_its_header() -> None:
    assert predictions_csv([], []) == b"timestamp_ms,rank,label,logit,probability\n"


@pytest.mark.parametrize(("timestamps_ms", "frames"), [([0.0], []), ([], [[]])])
def test_timestamps_and_frames_must_have_equal_lengths(
    timestamps_ms: list[float], frames: list[list[Prediction]]
) -> None:
    with pytest.raises(ValueError, match="zip"):
        predictions_csv(timestamps_ms, frames)


# ---- texts ----


def test_the_users_texts_are_unchanged() -> None:
    assert prompts(["a red circle", " Ü ", "a red circle"]) == (
        "a red circle",
        " Ü ",
        "a red circle",
    )


@pytest.mark.parametrize("wrong", ["a red circle", "", [], ()])
def test_texts_that_are_not_a_list_are_refused(wrong: Sequence[str]) -> None:
    with pytest.raises(UsageError, match="pred_texts must be a list of at least one text"):
        prompts(wrong)


def test_without_texts_there_is_one_for_each_of_the_400_classes_of_kinetics() -> None:
    texts = prompts(None)
    assert len(texts) == len(set(texts)) == 400
    assert (texts[0], texts[-1]) == ("a photo of abseiling", "a photo of zumba")
    assert list(texts) == sorted(texts)
    assert [text for text in texts if text != text.strip() or not text.isprintable()] == []


def test_the_classes_are_those_of_the_published_list(shared_data: Path) -> None:
    given = (shared_data / "kinetics400.txt").read_bytes()
    assert zeroshot.KINETICS_LABELS.read_bytes() == given


@pytest.mark.parametrize("context_length", [16, 77])  # of the demo model, of OpenAI's
def test_the_texts_of_kinetics_fit_the_context(context_length: int) -> None:
    tokens = openai_clip().tokenize(
        list(prompts(None)), context_length
    )  # raises where one does not
    assert len(set(map(tuple, tokens.tolist()))) == 400


def test_neither_torch_nor_ray_is_imported() -> None:
    script = """
import sys
from rayclip.model.zeroshot import prompts
prompts(None)
print({"torch", "ray", "clip"} & set(sys.modules))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"
