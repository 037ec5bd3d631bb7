"""What a run needs of a node, and what is said where it is not there.

Every node that will work looks before the run begins: see :mod:`rayclip.actors.probing`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rayclip.errors import RayclipError
from rayclip.io.faults import passes, reason
from rayclip.io.patience import A_LOOK, persistently
from rayclip.io.remote import open_remote
from rayclip.messages import node_name
from rayclip.model.weights import look_for_official
from rayclip.output.folder import FeatureFolder
from rayclip.session.markers import try_beside

MOST_NODES = 16  # of which every single one is probed; of more, one of each kind
MOST_NAMES = 3
OF_ONE_NODE = "ray.io/node-id"

WEIGHTS, INPUT, OUTPUT, UNSEEN = "weights", "input", "output", "unseen"


@dataclass(frozen=True)
class Needs:
    """What a node must have.

    Attributes:
        weights: name, SHA-256 and mirror of an official model that it must get.
        video: an input that it must open.
        storage_options: given to fsspec for the video.
        folder: where it must write.
        marker: a file in there, by which the folder is known to be the same.
    """

    weights: tuple[str, str, str | None] | None = None
    video: str | None = None
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    folder: FeatureFolder | None = None
    marker: str = ""


@dataclass(frozen=True)
class Report:
    """What was found on a node.

    Attributes:
        node: how it is called.
        versions: of rayclip, Ray and Python.
        missing: the package that could not be imported.
        failed: why nothing could be found out.
        troubles: what :func:`look` gave.
    """

    node: str
    versions: Mapping[str, str] = field(default_factory=dict)
    missing: str | None = None
    failed: str | None = None
    troubles: Mapping[str, str] = field(default_factory=dict)


class Node(NamedTuple):
    """A node that will work.

    Attributes:
        node_id: Ray's own name of it.
        name: for people.
        decodes: whether it has CPUs for decoding tasks.
        encodes: whether encoders may be placed there.
    """

    node_id: str
    name: str
    decodes: bool
    encodes: bool


def look(needs: Needs) -> dict[str, str]:
    """Find out on this machine what is not there: kinds of trouble, and their reasons."""
    troubles = {}
    if needs.weights is not None:
        try:
            look_for_official(*needs.weights)
        except RayclipError as error:
            troubles[WEIGHTS] = str(error)
    if needs.video is not None and (trouble := why_closed(needs.video, needs.storage_options)):
        troubles[INPUT] = trouble
    if needs.folder is not None:
        try:
            if not try_beside(needs.folder.where()[0], needs.marker):
                troubles[UNSEEN] = needs.marker
        except Exception as error:  # each storage has exceptions of its own
            troubles[OUTPUT] = reason(error)
    return troubles


def why_closed(video: str, storage_options: Mapping[str, Any]) -> str | None:
    """Why an input cannot be opened on this machine; None where it can."""

    def read() -> None:
        if "://" in video:
            with open_remote(video, storage_options) as file:
                file.read(1)
        elif os.path.exists(video) and not os.path.isfile(video):
            raise OSError("it is not a file")  # opening a pipe may wait for ever
        else:
            with open(video, "rb") as file:
                file.read(1)

    try:
        persistently(read, passes, A_LOOK)
    except FileNotFoundError:
        return "there is no such file"
    except Exception as error:  # each storage has exceptions of its own
        return reason(error)
    return None


def nodes_to_probe(nodes: Iterable[Mapping[str, Any]], device: str) -> list[Node]:
    """Those that will work, as long as they are few; else one of each kind.

    Args:
        nodes: as ``ray.nodes()`` gives them.
        device: of the encoders, ``cpu`` or ``cuda``.
    """
    working: list[Node] = []
    kinds: dict[object, Node] = {}
    for node in nodes:
        resources = node["Resources"]
        decodes = resources.get("CPU", 0) > 0
        encodes = resources.get("CPU" if device == "cpu" else "GPU", 0) > 0
        if node["Alive"] and (decodes or encodes):
            working.append(Node(node["NodeID"], node_name(node), decodes, encodes))
            labels = {k: v for k, v in node.get("Labels", {}).items() if k != OF_ONE_NODE}
            names = frozenset(name for name in resources if not name.startswith("node:"))
            kinds.setdefault((names, frozenset(labels.items())), working[-1])
    return working if len(working) <= MOST_NODES else list(kinds.values())


def why_not(
    needs: Needs, here: Mapping[str, str], opens_here: bool, reports: Sequence[Report]
) -> str | None:
    """The sentence for what is missing on nodes; None where nothing is.

    An input that opens nowhere is a bad video, and no trouble of a node.

    Args:
        needs: what every node was asked for.
        here: versions on the machine of the command.
        opens_here: whether the video opens there.
        reports: of the nodes.
    """
    versions = [(r.node, _told(r.versions)) for r in reports if _differ(r.versions, here)]
    if found := _alike(versions):
        on, theirs = found
        return f"{on}, there is {theirs}, but here {_told(here)}: install the same everywhere."
    if found := _alike([(report.node, report.missing) for report in reports]):
        on, why = found
        return (
            f"{on}, rayclip cannot be imported ({why}): install the same rayclip there as here, "
            "with the packages for your storage."
        )
    if found := _alike([(report.node, report.failed) for report in reports]):
        on, why = found
        return f"{on}, rayclip cannot run: {why}."
    somewhere = opens_here or any(INPUT not in report.troubles for report in reports)
    for kind in (WEIGHTS, INPUT, UNSEEN, OUTPUT):
        found = _alike([(report.node, report.troubles.get(kind)) for report in reports])
        if found and (kind != INPUT or somewhere):
            return _sentence(kind, *found, needs)
    return None


def _differ(versions: Mapping[str, str], here: Mapping[str, str]) -> bool:
    """Whether a known version is another: that of a missing package is not known."""
    return any(versions[name] != here[name] for name in versions.keys() & here.keys())


def _sentence(kind: str, on: str, why: str, needs: Needs) -> str:
    url = needs.folder.url if needs.folder is not None else None
    return {
        WEIGHTS: f"{on}, the weights cannot be had: {why}",
        INPUT: (
            f"{on}, the input {needs.video} cannot be opened ({why}), but elsewhere it can: have "
            "the videos, or the credentials for them, in the same place on all nodes, or give URLs."
        ),
        UNSEEN: (
            f"{on}, the folder {url} is another than here: choose an output_path that every node "
            "mounts in the same place, or a URL."
        ),
        OUTPUT: (
            f"{on}, nothing can be written to {url} ({why}): allow it there, or choose another "
            "output_path."
        ),
    }[kind]


def _alike(found: Sequence[tuple[str, str | None]]) -> tuple[str, str] | None:
    """The first reason, and on which nodes it holds."""
    why = next((why for _, why in found if why is not None), None)
    if why is None:
        return None
    nodes = [node for node, other in found if other == why]
    more = len(nodes) - MOST_NAMES
    names = ", ".join(nodes[:MOST_NAMES]) + (f" and {more} more" if more > 0 else "")
    return f"On node{'s' if len(nodes) > 1 else ''} {names}", why


def _told(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
