"""Find existing output folders, and open them by their ``run.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import fsspec
import numpy as np

from rayclip.errors import UsageError
from rayclip.output.array_folder import ArrayFolder, model_folder
from rayclip.output.folder import RUN_FILE, FeatureFolder
from rayclip.output.formats import file_format
from rayclip.output.shards import ShardFolder


class FolderFormat(NamedTuple):
    """The format of the features in a folder.

    Attributes:
        dim: features per frame.
        on_extraction: ``save_numpy``, ``save_pickle`` or ``save_parquet``.
        feature_dtype: ``float32`` or ``float16``.
        naming: how files are named, ``stem`` or ``path``.
        of_tars: whether the videos are those of tar files.
    """

    dim: int
    on_extraction: str
    feature_dtype: str
    naming: str
    of_tars: bool = False


class RecordedRun(NamedTuple):
    """The output folder of one model, and the settings of its last run.

    Attributes:
        folder: the folder.
        run: the content of ``run.json``.
    """

    folder: FeatureFolder
    run: dict[str, Any]


def model_folders(output_path: str, storage_options: Mapping[str, Any]) -> list[str]:
    """Return the folders with a ``run.json``: this one, or those of its models.

    Args:
        output_path: of a run, or the folder of one model in it.
        storage_options: passed to fsspec.

    Raises:
        UsageError: there is none, or the storage cannot be read.
    """
    base = output_path if output_path.endswith("/") else f"{output_path}/"
    try:
        fs, root = fsspec.core.url_to_fs(output_path, **storage_options)
        if _exists(fs, f"{root}/{RUN_FILE}"):
            return [output_path]
        names = sorted(path.rstrip("/").rpartition("/")[2] for path in _entries(fs, f"{root}/clip"))
        found = [name for name in names if _exists(fs, f"{root}/clip/{name}/{RUN_FILE}")]
    except Exception as error:  # each storage has exceptions of its own
        raise UsageError(f"The folder {output_path} cannot be read: {error}.") from error
    if not found:
        raise UsageError(
            f"{output_path} has no {RUN_FILE}, and no clip/MODEL in it has one: name the "
            "output_path of a run that has started to save features."
        )
    return [f"{base}clip/{name}" for name in found]


def one_model_folder(
    output_path: str, model_name: str | None, storage_options: Mapping[str, Any]
) -> str:
    """Return the folder of a model.

    Args:
        output_path: of a run, or the folder of one model in it.
        model_name: the model; required if there are several.
        storage_options: passed to fsspec.

    Raises:
        UsageError: there are no features, none of this model, or several models.
    """
    urls = model_folders(output_path, storage_options)
    models = {url.rstrip("/").rpartition("/")[2]: url for url in urls}
    names = ", ".join(models)
    if model_name is None:
        if len(models) > 1:
            raise UsageError(
                f"{output_path} has features of several models ({names}): name one with model_name."
            )
        return urls[0]
    wanted = model_folder("", model_name).rpartition("/")[2]
    if wanted not in models:
        raise UsageError(f"{output_path} has no features of {model_name}; it has those of {names}.")
    return models[wanted]


def open_run(url: str, storage_options: Mapping[str, Any]) -> RecordedRun:
    """Open the output folder of one model.

    Raises:
        UsageError: ``run.json`` is damaged.
    """
    run = ArrayFolder(url, 1, storage_options).read_run() or {}
    try:
        folder_format = FolderFormat(
            int(run["dim"]),
            run.get("on_extraction", "save_numpy"),
            run["feature_dtype"],
            run.get("naming", "stem"),
            run.get("of_tars") is True,
        )
        return RecordedRun(open_folder(url, folder_format, storage_options), run)
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{url}/{RUN_FILE} is damaged ({error!r}): remove it.") from error


def recorded_revision(url: str, storage_options: Mapping[str, Any]) -> str | None:
    """Return the commit of a repository on the hub that the weights of a folder's features are
    from; None if there are none.

    Raises:
        UsageError: ``run.json`` is damaged.
    """
    revision = (ArrayFolder(url, 1, storage_options).read_run() or {}).get("revision")
    return revision if isinstance(revision, str) else None


def open_folder(
    url: str, folder_format: FolderFormat, storage_options: Mapping[str, Any]
) -> FeatureFolder:
    """Open a folder of this format.

    Raises:
        UsageError: the URL's protocol is unknown.
        TypeError, ValueError: there is no such format.
    """
    if folder_format.on_extraction == "save_parquet":
        return ShardFolder(
            url, folder_format.dim, storage_options, np.dtype(folder_format.feature_dtype).name
        )
    files = file_format(folder_format.on_extraction, folder_format.feature_dtype)
    np.empty((0, folder_format.dim), folder_format.feature_dtype)
    naming, of_tars = folder_format.naming, folder_format.of_tars
    return ArrayFolder(url, folder_format.dim, storage_options, files, naming, of_tars)


def _exists(fs: Any, path: str) -> bool:
    try:
        fs.info(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _entries(fs: Any, path: str) -> list[str]:
    try:
        entries: list[str] = fs.ls(path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return entries
