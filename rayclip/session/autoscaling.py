"""Whether a cluster has an autoscaler, which starts nodes for work that waits for them."""

from __future__ import annotations

import json

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get

ANSWER_S = 5
BY_HAND = "node_"  # what Ray calls the types of nodes that nobody has given any


def has_autoscaler() -> bool:
    """Whether an autoscaler looks after the cluster that is connected.

    Ray has no public call for it. What it shows in ``ray status`` names a type for each node, and
    only an autoscaler has types: of other nodes it says :data:`BY_HAND` and their ids.
    """
    try:
        types = _types_of_v2() if is_autoscaler_v2(fetch_from_server=True) else _types_of_v1()
    except Exception:  # whatever it is that has changed in there
        return False
    return any(not name.startswith(BY_HAND) for name in types)


def _types_of_v1() -> set[str]:
    told = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    report = json.loads(told).get("autoscaler_report") if told else None
    report = report or {}
    running = (report.get("active_nodes") or {}, report.get("idle_nodes") or {})
    mapping = report.get("node_type_mapping") or {}
    return {*(name for nodes in running for name in nodes), *mapping.values()}


def _types_of_v2() -> set[str]:
    status = get_cluster_status(ray.get_runtime_context().gcs_address, ANSWER_S)
    nodes = [*status.active_nodes, *status.idle_nodes]
    return {node.ray_node_type_name for node in nodes if node.ray_node_type_name}
