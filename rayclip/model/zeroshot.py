"""What a frame shows, in words: its features beside those of texts, and the printed table."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rayclip.errors import UsageError

KINETICS_LABELS = Path(__file__).parent / "assets" / "kinetics400.txt"
KINETICS_PROMPT = "a photo of {}"
CHUNK_BYTES = 64 * 2**20  # working memory, however long the video is


class Prediction(NamedTuple):
    """A text that may describe a frame.

    Attributes:
        rank: 1 for the best.
        label: the whole text.
        logit: ``logit_scale`` times the cosine between the frame and the text.
        probability: softmax of the logit over all texts.
    """

    rank: int
    label: str
    logit: float
    probability: float


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Texts that frames are compared with.

    Attributes:
        texts: at least one.
        text_features: float32 ``[N, D]``, as CLIP's text encoder gives them, not normalised.
        logit_scale: CLIP's factor of the cosines, exponentiated: 100 in OpenAI's models.
    """

    texts: tuple[str, ...]
    text_features: NDArray[np.float32]
    logit_scale: float

    def top(self, clip: NDArray[np.float32], k: int = 5) -> list[list[Prediction]]:
        """The best texts of every frame, best first; equal ones in the order of ``texts``.

        The numbers of a frame do not depend on the other frames, to the bit.

        Args:
            clip: features of the frames, float32 ``[T, D]``, not normalised.
            k: texts per frame; all where there are fewer.
        """
        texts = _normalise(self.text_features)
        frame_bytes = 8 * (4 * len(texts) + 2 * clip.shape[1])  # logits, their sort and softmax
        step = max(1, CHUNK_BYTES // frame_bytes)
        return [
            predictions
            for start in range(0, len(clip), step)
            for predictions in self._top(_normalise(clip[start : start + step]), texts, k)
        ]

    def _top(
        self, frames: NDArray[np.float64], texts: NDArray[np.float64], k: int
    ) -> list[list[Prediction]]:
        # Not frames @ texts.T: BLAS rounds a product differently at the end of a matrix, so equal
        # texts would not tie, and a frame's last digits would depend on the length of the video.
        logits = self.logit_scale * np.einsum("td,nd->tn", frames, texts)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        sums = exponentials.sum(axis=1, keepdims=True)
        best_logits = np.take_along_axis(logits, best, axis=1)
        probabilities = np.take_along_axis(exponentials, best, axis=1) / sums
        return [
            [
                Prediction(rank, self.texts[index], logit, probability)
                for rank, (index, logit, probability) in enumerate(zip(*row, strict=True), start=1)
            ]
            for row in zip(best.tolist(), best_logits.tolist(), probabilities.tolist(), strict=True)
        ]


def prompts(pred_texts: Sequence[str] | None) -> tuple[str, ...]:
    """The texts of ``pred_texts``; without any, one for each of the 400 classes of Kinetics.

    Raises:
        UsageError: ``pred_texts`` is not a list, or it is empty.
    """
    if pred_texts is None:
        labels = KINETICS_LABELS.read_text("utf-8").splitlines()
        return tuple(KINETICS_PROMPT.format(label) for label in labels)
    if isinstance(pred_texts, str) or not len(pred_texts):
        raise UsageError(f"pred_texts must be a list of at least one text, not {pred_texts!r}.")
    return tuple(pred_texts)


def format_table(predictions: Sequence[Prediction]) -> str:
    """The predictions of a frame as video_features prints them, with the empty line below."""
    rows = [f"{logit:8.3f} | {share:.3f} | {label}" for _, label, logit, share in predictions]
    return "\n".join(["  Logits | Prob. | Label ", *rows, "", ""])


def predictions_csv(
    timestamps_ms: Iterable[float], frames: Iterable[Sequence[Prediction]]
) -> bytes:
    """The predictions of a video as a CSV file, one row for each frame and rank.

    Args:
        timestamps_ms: of each frame.
        frames: the predictions of each frame.
    """
    text = io.StringIO(newline="")
    header = ("timestamp_ms", *Prediction._fields)
    csv.writer(text, lineterminator="\n").writerow(header)
    # Every label in quotes: by default Python 3.11 leaves a carriage return bare.
    rows = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for timestamp_ms, predictions in zip(timestamps_ms, frames, strict=True):
        rows.writerows((float(timestamp_ms), *prediction) for prediction in predictions)
    return text.getvalue().encode()


def _normalise(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows of length 1, in double."""
    rows = features.astype(np.float64, order="C")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
