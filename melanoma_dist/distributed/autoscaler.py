"""Whether an autoscaler adds nodes to the cluster that this process is connected to."""

from __future__ import annotations

import json
import time

import ray
from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS
from ray.autoscaler.v2.sdk import get_cluster_status
from ray.experimental.internal_kv import _internal_kv_get

_FRESH_S = 120.0  # an older report is of an autoscaler that is gone
# The head node of every cluster has a monitor, which reports nodes that it did not start under these names.
_NOT_ITS_OWN = "node_"


def can_grow() -> bool:
    """Whether an autoscaler starts and stops nodes of the cluster.

    No call of Ray tells it. Its autoscalers name the type of each node that they manage: the first version in its
    report, which `ray status` prints; the second (of KubeRay, for example) in the status of the cluster.
    """
    return any(name and not name.startswith(_NOT_ITS_OWN) for name in (*_reported_types(), *_registered_types()))


def _reported_types() -> list[str]:
    text = _internal_kv_get(DEBUG_AUTOSCALING_STATUS)
    status = json.loads(text) if text else {}
    report = status.get("autoscaler_report")
    if report is None or time.time() - status.get("time", 0.0) > _FRESH_S:
        return []
    return [*report.get("active_nodes", {}), *(kind for _, kind, *_ in report.get("pending_nodes", []))]


def _registered_types() -> list[str]:
    try:
        status = get_cluster_status(ray.get_runtime_context().gcs_address)
    except Exception:  # Ray raises no specific class here, and without an answer the cluster is as large as it is
        return []
    return [node.ray_node_type_name for node in (*status.active_nodes, *status.idle_nodes)]
