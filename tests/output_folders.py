"""Output folders as runs have begun them, without any run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from rayclip.output.array_folder import ArrayFolder, Extraction, model_folder
from rayclip.output.formats import file_format

DIM = 4


def a_run(
    output: str | Path, model: str = "demo", naming: str = "stem", pickled: bool = False
) -> ArrayFolder:
    """A folder as a run has begun it."""
    on_extraction = "save_pickle" if pickled else "save_numpy"
    files = file_format(on_extraction, "float32")
    url = model_folder(str(output), model)
    folder = ArrayFolder(url, DIM, {}, files, naming=naming)
    folder.prepare()
    record = {"model_name": model, "dim": DIM, "feature_dtype": "float32", "extraction_fps": "5"}
    record |= {"naming": naming, "on_extraction": on_extraction, "device": None}
    folder.write_run({**record, "versions": {"rayclip": "0.1.0", "ray": None}})
    return folder


def commit(folder: ArrayFolder, name: str, frames: int = 3) -> None:
    clip = np.ones((frames, DIM), np.float32)
    folder.commit(name, Extraction(clip, np.arange(frames, dtype=np.float64), 25.0))


class Harm:
    """Unpickled without care, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)
