"""Zero-shot classification of frames: compare their features with those of texts."""

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
from rayclip.model.models import Probability

KINETICS_LABELS = Path(__file__).parent / "assets" / "kinetics400.txt"
KINETICS_PROMPT = "a photo of {}"
CHUNK_BYTES = 64 * 2**20  # working memory, regardless of the video's length


class Prediction(NamedTuple):
    """A text that may describe a frame.

    Attributes:
        rank: 1 for the best.
        label: the text, including its prompt.
        logit: ``logit_scale`` times the cosine between the frame and the text, plus
            ``logit_bias``.
        probability: softmax of the logit over all texts, or its sigmoid: see
            :attr:`ZeroShot.probability`.
    """

    rank: int
    label: str
    logit: float
    probability: float


@dataclass(frozen=True, eq=False)
class ZeroShot:
    """Texts to compare frames with.

    Attributes:
        texts: at least one.
        text_features: float32 ``[N, D]`` of CLIP's text encoder, not normalised.
        logit_scale: the model's factor for cosines, already exponentiated: 100 in OpenAI's models.
        logit_bias: added to the scaled cosines.
        probability: ``softmax`` over all texts, or ``sigmoid`` of each, as SigLIP was trained.
    """

    texts: tuple[str, ...]
    text_features: NDArray[np.float32]
    logit_scale: float
    logit_bias: float = 0.0
    probability: Probability = "softmax"

    def top(self, clip: NDArray[np.float32], k: int = 5) -> list[list[Prediction]]:
        """Return the best texts of each frame, best first; ties keep the order of ``texts``.

        The numbers of a frame do not depend on the other frames, bit for bit.

        Args:
            clip: features of the frames, float32 ``[T, D]``, not normalised.
            k: texts per frame; all if there are fewer.
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
        # Not frames @ texts.T: BLAS rounds products at the end of a matrix differently. Equal texts
        # would not tie, and a frame's last digits would depend on the length of the video.
        logits = self.logit_scale * np.einsum("td,nd->tn", frames, texts) + self.logit_bias
        best = np.argsort(-logits, axis=1, kind="stable")[:, :k]
        best_logits = np.take_along_axis(logits, best, axis=1)
        if self.probability == "sigmoid":
            probabilities = 0.5 * (1 + np.tanh(best_logits / 2))  # cannot overflow
        else:
            exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
            sums = exponentials.sum(axis=1, keepdims=True)
            probabilities = np.take_along_axis(exponentials, best, axis=1) / sums
        return [
            [
                Prediction(rank, self.texts[index], logit, probability)
                for rank, (index, logit, probability) in enumerate(zip(*row, strict=True), start=1)
            ]
            for row in zip(best.tolist(), best_logits.tolist(), probabilities.tolist(), strict=True)
        ]


def prompts(pred_texts: Sequence[str] | None) -> tuple[str, ...]:
    """Return ``pred_texts``; for None, a prompt for each of the 400 classes of Kinetics.

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
    """Format the predictions of a frame as video_features does, with a blank line at the end."""
    rows = [f"{logit:8.3f} | {share:.3f} | {label}" for _, label, logit, share in predictions]
    return "\n".join(["  Logits | Prob. | Label ", *rows, "", ""])


def predictions_csv(
    timestamps_ms: Iterable[float], frames: Iterable[Sequence[Prediction]]
) -> bytes:
    """Return the predictions of a video as a CSV file, with a row for each frame and rank.

    Args:
        timestamps_ms: of each frame, in ms.
        frames: the predictions of each frame.
    """
    text = io.StringIO(newline="")
    header = ("timestamp_ms", *Prediction._fields)
    csv.writer(text, lineterminator="\n").writerow(header)
    # Quote every label: by default Python 3.11 does not quote a carriage return.
    rows = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    for timestamp_ms, predictions in zip(timestamps_ms, frames, strict=True):
        rows.writerows((float(timestamp_ms), *prediction) for prediction in predictions)
    return text.getvalue().encode()


def _normalise(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Scale rows to unit length, in float64."""
    rows = features.astype(np.float64, order="C")
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
