"""Preflight: before a run, a task on each node of a cluster checks that the node can do its
part."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclip.actors.job import ExtractionJob
from rayclip.actors.ray_calls import root_cause
from rayclip.console import node_name, say_to_user
from rayclip.errors import RayclipError, UsageError
from rayclip.inputs.videos import absolute
from rayclip.io.atomic_write import temporary_name
from rayclip.io.remote import open_remote
from rayclip.io.retry import PROBE, with_retry
from rayclip.io.storage_errors import is_transient, reason
from rayclip.model.models import ModelSpec, family_of
from rayclip.output.folder import FeatureFolder

TIMEOUT_S = 20.0
MAX_PROBED_VIDEOS = 8  # until one opens
MAX_NAMES = 3


def check_nodes(
    specs: Sequence[ModelSpec], job: ExtractionJob, videos: Iterable[str], device: str
) -> None:
    """Check that each node can import rayclip, find the weights, open an input and write output.

    The output folder is created here first: a node where it is missing sees another folder. An
    input that does not open here says nothing about the nodes. Nodes that do not answer within 20 s
    are named, and the run goes on: they may be busy.

    Raises:
        UsageError: a node fails a check; the sentence says what to do.
    """
    options = job.storage_options
    first = [absolute(video, job.folder_of_inputs) for video in islice(videos, MAX_PROBED_VIDEOS)]
    video = next((video for video in first if open_error(video, options) is None), None)
    for folder in job.folders:
        folder.prepare()
    task = ray.remote(num_cpus=0, max_retries=0)(_node_task())
    node_names = {}
    for node in ray.nodes():
        resources = node["Resources"] if node["Alive"] else {}
        decodes = "CPU" in resources
        encodes = ("CPU" if device == "cpu" else "GPU") in resources
        if decodes or encodes:
            check = partial(
                find_problem,
                specs if encodes else (),
                video if decodes else None,
                options,
                job.folders if decodes else (),
            )
            on_node = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            reply = task.options(scheduling_strategy=on_node).remote(pickle.dumps(check))
            node_names[reply] = node_name(node)
    answers = _collect_answers(node_names)
    if sentence := describe_problems(answers, _node_task()(None)["versions"]):
        raise UsageError(sentence)
    if late := [name for name in node_names.values() if name not in answers]:
        say_to_user(f"not checked, because of no answer in {TIMEOUT_S:.0f} s: {', '.join(late)}")


def _collect_answers(node_names: Mapping[Any, str]) -> dict[str, dict[str, Any]]:
    """Return what the nodes answered in time, by their names."""
    done, late = ray.wait([*node_names], num_returns=len(node_names), timeout=TIMEOUT_S)
    for reply in late:
        ray.cancel(reply, force=True)
    answers = {}
    for reply in done:
        try:
            answers[node_names[reply]] = ray.get(reply)
        except (RayTaskError, RuntimeEnvSetupError) as error:
            problem = f"rayclip cannot run: {root_cause(error).rstrip('.')}."
            answers[node_names[reply]] = {"versions": {}, "problem": problem}
        except RayError:  # the node was lost, or too busy for another process
            continue
    return answers


def _node_task() -> Callable[[bytes | None], dict[str, Any]]:
    """Return the function that runs on each node. It is local, so that Ray sends its code: a node
    without rayclip could not import it."""

    def task(check: bytes | None) -> dict[str, Any]:
        import pickle
        import platform

        import ray

        versions = {"Ray": ray.__version__, "Python": platform.python_version()}
        problem = None
        try:
            import rayclip

            versions = {"rayclip": rayclip.__version__, **versions}
            problem = pickle.loads(check)() if check else None
        except ImportError as error:
            problem = (
                f"rayclip cannot be imported ({error}): install the same rayclip there as here, "
                "with the packages for your storage."
            )
        except Exception as error:  # another version may expect something else
            problem = f"rayclip cannot run: {type(error).__name__}: {error}."
        return {"versions": versions, "problem": problem}

    return task


def describe_problems(
    answers: Mapping[str, Mapping[str, Any]], here: Mapping[str, str]
) -> str | None:
    """Return the sentence for the first problem, with all nodes that have it; None if there is
    none.

    Args:
        answers: of the nodes, by name: ``versions``, and ``problem`` or None.
        here: versions on this machine. A version that a node does not report is no problem.
    """
    nodes_with: dict[str, list[str]] = {}
    for node, answer in answers.items():
        versions, problem = answer["versions"], answer["problem"]
        if any(versions.get(name, version) != version for name, version in here.items()):
            problem = (
                f"there is {_format_versions(versions)}, but here {_format_versions(here)}: "
                "install the same everywhere."
            )
        if problem is not None:
            nodes_with.setdefault(problem, []).append(node)
    for problem, nodes in nodes_with.items():
        names = ", ".join(nodes[:MAX_NAMES])
        more = f" and {len(nodes) - MAX_NAMES} more" if len(nodes) > MAX_NAMES else ""
        return f"On node{'s' if len(nodes) > 1 else ''} {names}{more}, {problem}"
    return None


def _format_versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def find_problem(
    specs: Sequence[ModelSpec],
    video: str | None,
    storage_options: Mapping[str, Any],
    folders: Sequence[FeatureFolder],
) -> str | None:
    """Return what this machine lacks, and what to do, as the end of a sentence; None if nothing.

    Args:
        specs: models that it must load.
        video: an input that it must open.
        storage_options: passed to fsspec for the video.
        folders: that it must write to.
    """
    for spec in specs:
        try:
            family_of(spec.model_name).preflight(spec)
        except RayclipError as error:
            return f"the weights cannot be loaded: {error}"
    if video is not None and (cause := open_error(video, storage_options)):
        return (
            f"the input {video} cannot be opened ({cause}), but here it can: put the videos, or "
            "the credentials for them, in the same place on all nodes, or use URLs."
        )
    for folder in folders:
        if (cause := _write_error(folder)) is None:
            continue
        return (
            f"nothing can be written to {folder.url} ({cause}): choose an output_path that all "
            "nodes mount in the same place and may write to, or a URL."
        )
    return None


def open_error(video: str, storage_options: Mapping[str, Any]) -> str | None:
    """Return why an input cannot be opened on this machine; None if it can."""

    def read() -> None:
        if "://" in video:
            with open_remote(video, storage_options) as file:
                file.read(1)
        elif os.path.exists(video) and not os.path.isfile(video):
            raise OSError("it is not a file")  # opening a pipe may block forever
        else:
            with open(video, "rb") as file:
                file.read(1)

    return _error_of(read)


def _write_error(folder: FeatureFolder) -> str | None:
    fs, root = folder.fs_and_path()
    path = f"{root}/{temporary_name()}"
    if error := _error_of(lambda: fs.pipe_file(path, b"")):
        return error
    _error_of(lambda: fs.rm_file(path))  # permission to write may not include permission to delete
    return None


def _error_of(action: Callable[[], Any]) -> str | None:
    try:
        with_retry(action, is_transient, PROBE)
    except FileNotFoundError:
        return "there is no such file or folder"
    except Exception as error:  # each storage has its own exceptions
        return reason(error)
    return None
