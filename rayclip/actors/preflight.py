"""Preflight: before a run, a task on each node of a cluster makes sure that it can do its part."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclip.actors.job import ExtractionJob
from rayclip.actors.ray_calls import reason_of
from rayclip.console import node_name, say_to_user
from rayclip.errors import RayclipError, UsageError
from rayclip.inputs.videos import absolute
from rayclip.io.atomic_write import temporary_name
from rayclip.io.remote import open_remote
from rayclip.io.retry import PROBE, with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.model.models import ModelSpec
from rayclip.model.weights import check_official_available
from rayclip.output.folder import FeatureFolder

ANSWER_S = 20.0
FIRST_VIDEOS = 8  # among which one that opens is looked for
MAX_NAMES = 3


def check_nodes(spec: ModelSpec, job: ExtractionJob, videos: Iterable[str], device: str) -> None:
    """Let each node import rayclip, find the weights, open an input and write to the output folder.

    The folder is made first: where it is missing, it is not this one. An input that does not open
    here is no matter of the nodes. Nodes that do not answer within 20 s are named, and the run goes
    on: they may be busy.

    Raises:
        UsageError: a node cannot do it; the sentence says what to do.
    """
    options = job.storage_options
    firsts = [absolute(video, job.folder_of_inputs) for video in islice(videos, FIRST_VIDEOS)]
    video = next((video for video in firsts if why_closed(video, options) is None), None)
    weights = None if spec.checkpoint else (spec.model_name, spec.weights_sha256, spec.mirror)
    if job.folder is not None:
        job.folder.prepare()
    task = ray.remote(num_cpus=0, max_retries=0)(_task_of_a_node())
    asked = {}
    for node in ray.nodes():
        has = node["Resources"] if node["Alive"] else {}
        decodes, encodes = "CPU" in has, ("CPU" if device == "cpu" else "GPU") in has
        if decodes or encodes:
            check = partial(
                what_is_missing,
                weights if encodes else None,
                video if decodes else None,
                options,
                job.folder if decodes else None,
            )
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            reply = task.options(scheduling_strategy=there).remote(pickle.dumps(check))
            asked[reply] = node_name(node)
    answers = _answers_of(asked)
    if sentence := what_is_wrong(answers, _task_of_a_node()(None)["versions"]):
        raise UsageError(sentence)
    if late := [name for name in asked.values() if name not in answers]:
        say_to_user(f"no answer in {ANSWER_S:.0f} s, and so not checked: {', '.join(late)}")


def _answers_of(asked: Mapping[Any, str]) -> dict[str, dict[str, Any]]:
    """What the nodes answered in time, by their names."""
    done, late = ray.wait([*asked], num_returns=len(asked), timeout=ANSWER_S)
    for reply in late:
        ray.cancel(reply, force=True)
    answers = {}
    for reply in done:
        try:
            answers[asked[reply]] = ray.get(reply)
        except (RayTaskError, RuntimeEnvSetupError) as error:
            trouble = f"rayclip cannot run: {reason_of(error).rstrip('.')}."
            answers[asked[reply]] = {"versions": {}, "trouble": trouble}
        except RayError:  # the node went, or was too busy for one process more
            continue
    return answers


def _task_of_a_node() -> Callable[[bytes | None], dict[str, Any]]:
    """What runs on a node. It is inside a function so that it is sent with its code: a node that
    has no rayclip could not look it up."""

    def task(check: bytes | None) -> dict[str, Any]:
        import pickle
        import platform

        import ray

        versions = {"Ray": ray.__version__, "Python": platform.python_version()}
        trouble = None
        try:
            import rayclip

            versions = {"rayclip": rayclip.__version__, **versions}
            trouble = pickle.loads(check)() if check else None
        except ImportError as error:
            trouble = (
                f"rayclip cannot be imported ({error}): install the same rayclip there as here, "
                "with the packages for your storage."
            )
        except Exception as error:  # what is sent is not what another version expects
            trouble = f"rayclip cannot run: {type(error).__name__}: {error}."
        return {"versions": versions, "trouble": trouble}

    return task


def what_is_wrong(answers: Mapping[str, Mapping[str, Any]], here: Mapping[str, str]) -> str | None:
    """The sentence for the first trouble, with all nodes that have it; None if there is none.

    Args:
        answers: of nodes by their names: ``versions``, and ``trouble`` or None.
        here: versions on the machine of the command; one that a node does not know is no trouble.
    """
    found: dict[str, list[str]] = {}
    for node, answer in answers.items():
        theirs, trouble = answer["versions"], answer["trouble"]
        if any(theirs.get(name, version) != version for name, version in here.items()):
            there_is = f"there is {_listed(theirs)}, but here {_listed(here)}"
            trouble = f"{there_is}: install the same everywhere."
        if trouble is not None:
            found.setdefault(trouble, []).append(node)
    for trouble, nodes in found.items():
        names = ", ".join(nodes[:MAX_NAMES])
        more = f" and {len(nodes) - MAX_NAMES} more" if len(nodes) > MAX_NAMES else ""
        return f"On node{'s' if len(nodes) > 1 else ''} {names}{more}, {trouble}"
    return None


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def what_is_missing(
    weights: tuple[str, str, str | None] | None,
    video: str | None,
    storage_options: Mapping[str, Any],
    folder: FeatureFolder | None,
) -> str | None:
    """What this machine lacks, and what to do, as the end of a sentence; None if nothing.

    Args:
        weights: name, SHA-256 and mirror of an official model that it must get.
        video: an input that it must open.
        storage_options: given to fsspec for the video.
        folder: where it must write.
    """
    if weights is not None:
        try:
            check_official_available(*weights)
        except RayclipError as error:
            return f"the weights cannot be had: {error}"
    if video is not None and (why := why_closed(video, storage_options)):
        return (
            f"the input {video} cannot be opened ({why}), but here it can: have the videos, or the "
            "credentials for them, in the same place on all nodes, or give URLs."
        )
    if folder is not None and (why := _why_not_writable(folder)):
        return (
            f"nothing can be written to {folder.url} ({why}): choose an output_path that all nodes "
            "mount in the same place and may write to, or a URL."
        )
    return None


def why_closed(video: str, storage_options: Mapping[str, Any]) -> str | None:
    """Why an input cannot be opened on this machine; None if it can."""

    def read() -> None:
        if "://" in video:
            with open_remote(video, storage_options) as file:
                file.read(1)
        elif os.path.exists(video) and not os.path.isfile(video):
            raise OSError("it is not a file")  # opening a pipe may wait for ever
        else:
            with open(video, "rb") as file:
                file.read(1)

    return _why_not(read)


def _why_not_writable(folder: FeatureFolder) -> str | None:
    fs, root = folder.fs_and_path()
    path = f"{root}/{temporary_name()}"
    if why := _why_not(lambda: fs.pipe_file(path, b"")):
        return why
    _why_not(lambda: fs.rm_file(path))  # not everybody who may write may remove
    return None


def _why_not(action: Callable[[], Any]) -> str | None:
    try:
        with_retry(action, is_transient, PROBE)
    except FileNotFoundError:
        return "there is no such file or folder"
    except Exception as error:  # each storage has exceptions of its own
        return reason(error)
    return None
