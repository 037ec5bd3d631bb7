"""Ask the nodes of a cluster, before a run, whether they have what it needs."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, RuntimeEnvSetupError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from rayclip.actors.job import ExtractionJob
from rayclip.actors.ray_calls import reason_of
from rayclip.errors import UsageError
from rayclip.inputs.videos import absolute
from rayclip.io.faults import reason
from rayclip.messages import say_to_user
from rayclip.model.models import ModelSpec
from rayclip.output.folder import FeatureFolder
from rayclip.session.markers import marked
from rayclip.session.probe import Needs, Node, Report, nodes_to_probe, why_closed, why_not

ANSWER_S = 20.0
FIRST_VIDEOS = 8  # among which one that opens is looked for


def probe_nodes(spec: ModelSpec, job: ExtractionJob, videos: Iterable[str], device: str) -> None:
    """Let nodes import rayclip, find the weights, open an input and write where features go.

    Those that do not answer in time are named, and the run goes on: they may be busy.

    Raises:
        UsageError: it cannot be done somewhere; the sentence says what to do.
    """
    nodes = nodes_to_probe(ray.nodes(), device)
    firsts = [absolute(video, job.folder_of_inputs) for video in islice(videos, FIRST_VIDEOS)]
    opens = (video for video in firsts if why_closed(video, job.storage_options) is None)
    opened = next(opens, None)
    needs = Needs(
        weights=(spec.model_name, spec.weights_sha256, spec.mirror)
        if not spec.checkpoint
        else None,
        video=opened or firsts[0],
        storage_options=job.storage_options,
        folder=job.folder,
    )
    with _marked(job.folder) as marker:
        reports = _reports(nodes, replace(needs, marker=marker))
    here = _probe()(b"")["versions"]
    if sentence := why_not(needs, here, opened is not None, reports):
        raise UsageError(sentence)
    answered = {report.node for report in reports}
    if late := [node.name for node in nodes if node.name not in answered]:
        say_to_user(f"no answer in {ANSWER_S:.0f} s, and so not checked: {', '.join(late)}")


@contextmanager
def _marked(folder: FeatureFolder | None) -> Iterator[str]:
    if folder is None:
        yield ""
        return
    with ExitStack() as stack:
        try:
            marker = stack.enter_context(marked(*folder.where()))
        except Exception as error:  # each storage has exceptions of its own
            raise UsageError(f"{folder.url} cannot be written: {reason(error)}.") from error
        yield marker


def _reports(nodes: list[Node], needs: Needs) -> list[Report]:
    task = ray.remote(num_cpus=0, max_retries=0)(_probe())
    asked = {}
    for node in nodes:
        mine = replace(
            needs,
            weights=needs.weights if node.encodes else None,
            video=needs.video if node.decodes else None,
            folder=needs.folder if node.decodes else None,
        )
        there = NodeAffinitySchedulingStrategy(node.node_id, soft=False)
        asked[task.options(scheduling_strategy=there).remote(pickle.dumps(mine))] = node.name
    answered, late = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S)
    for reference in late:
        ray.cancel(reference, force=True)
    reports = []
    for reference in answered:
        try:
            reports.append(Report(asked[reference], **ray.get(reference)))
        except (RayTaskError, RuntimeEnvSetupError) as error:
            reports.append(Report(asked[reference], failed=reason_of(error).rstrip(".")))
        except RayError:  # the node went, or was too busy for one process more
            continue
    return reports


def _probe() -> Callable[[bytes], dict[str, Any]]:
    """What runs on a node. It is inside a function so that it is sent with its code: a node that
    has no rayclip could not look it up."""

    def probe(needs: bytes) -> dict[str, Any]:
        import pickle
        import platform

        import ray

        versions = {"Ray": ray.__version__, "Python": platform.python_version()}
        try:
            import rayclip

            versions = {"rayclip": rayclip.__version__, **versions}
            from rayclip.session.probe import look

            troubles = look(pickle.loads(needs)) if needs else {}
        except ImportError as error:
            return {"versions": versions, "missing": str(error)}
        except Exception as error:  # what is sent is not what another version expects
            return {"versions": versions, "failed": f"{type(error).__name__}: {error}"}
        return {"versions": versions, "troubles": troubles}

    return probe
