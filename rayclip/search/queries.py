"""Encode texts and pictures with the model that made the features of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from rayclip.errors import UsageError
from rayclip.model.loaded_model import LoadedModel
from rayclip.model.loading import load_spec
from rayclip.model.models import CustomWeights, describe
from rayclip.search.moments import Query

CUSTOM = "custom"
NAME_CHECKPOINT = "name the checkpoint of the run with weights."
NO_OTHER = "load the weights of the run, or extract the features again."
MAX_PICTURE_PIXELS = 2**26  # 8192 x 8192, as for the frames of a video
TOO_LARGE = f"make it smaller, since at most {MAX_PICTURE_PIXELS} are read."


class QueryEncoder:
    """The model of a run, for queries."""

    def __init__(
        self, run: Mapping[str, Any], weights: str | None, storage_options: Mapping[str, Any]
    ) -> None:
        """Load the model, which takes seconds.

        Args:
            run: the content of ``run.json``.
            weights: the checkpoint of a custom model, which ``run.json`` does not name.
            storage_options: passed to fsspec for a URL.

        Raises:
            UsageError: there is no such model here, or these are not the weights of the run.
            WeightsUnavailable: official weights cannot be downloaded.
        """
        name = run["model_name"]
        if weights is not None and name != CUSTOM:
            raise UsageError(f"weights are only for model_name custom, but this is {name}.")
        custom = CustomWeights(weights, storage_options, run.get("activation"))
        spec = describe(name, custom, run.get("revision"))
        if spec.weights_sha256 != run.get("weights_sha256", spec.weights_sha256):
            raise UsageError(
                f"The features were made with other weights of {name} (SHA-256 "
                f"{run['weights_sha256'][:12]}…) than these ({spec.weights_sha256[:12]}…): "
                + (NAME_CHECKPOINT if name == CUSTOM else NO_OTHER)
            )
        self._has_texts = spec.has_texts
        self._name = name
        self._model: LoadedModel = load_spec(spec, None, None)

    def texts(self, texts: Sequence[str]) -> list[Query]:
        """Encode texts.

        Raises:
            UsageError: the model has no text encoder, or refuses a text.
        """
        if not texts:
            return []
        if not self._has_texts:
            raise UsageError(f"{self._name} has no text encoder: search with pictures (image).")
        return _queries(texts, self._model.encode_text(texts))

    def pictures(self, files: Sequence[str]) -> list[Query]:
        """Encode pictures, given their local files.

        Raises:
            UsageError: one cannot be read.
        """
        squares = []
        for file in files:
            with open_picture(file) as picture:
                squares.append(self._model.preprocess(picture))
        return _queries(files, self._model.encode_image(squares)) if files else []

    def picture(self, name: str, rgb: NDArray[np.uint8]) -> Query:
        """Encode a picture that is decoded already: uint8 RGB ``[height, width, 3]``."""
        return _queries([name], self._model.encode_image([self._model.preprocess(rgb)]))[0]

    def close(self) -> None:
        """Stop the model's threads."""
        self._model.close()


@contextmanager
def open_picture(
    file: str, name: str | None = None, formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """Open a picture, upright.

    Args:
        file: a local path.
        name: for messages; None takes the file.
        formats: Pillow's names of those that are allowed; None allows all.

    Raises:
        UsageError: it cannot be read, or it has more than :data:`MAX_PICTURE_PIXELS`.
    """
    name = name or file
    try:
        with Image.open(file, formats=formats) as picture:
            if picture.width * picture.height > MAX_PICTURE_PIXELS:
                size = f"{picture.width} x {picture.height}"
                raise UsageError(f"The picture {name} has {size} pixels: {TOO_LARGE}")
            yield ImageOps.exif_transpose(picture)
    except Image.DecompressionBombError as error:  # already while its header is read
        raise UsageError(f"The picture {name} has far too many pixels: {TOO_LARGE}") from error
    except (OSError, ValueError, SyntaxError) as error:
        reason = getattr(error, "strerror", None) or "Pillow does not know its format"
        raise UsageError(f"The picture {name} cannot be read: {reason}.") from error


def _queries(names: Sequence[str], features: NDArray[np.float32]) -> list[Query]:
    vectors = features / np.linalg.norm(features, axis=1, keepdims=True)
    return [Query(name, vector) for name, vector in zip(names, vectors, strict=True)]
