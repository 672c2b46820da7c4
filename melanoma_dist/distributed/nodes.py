"""Checks before the training that every node of the cluster can write to the run's folder."""

from __future__ import annotations

import secrets
import time
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from melanoma_dist.errors import ConfigError, MelanomaDistError

_ANSWER_S = 120.0  # a node that has run nothing yet starts a process first
_APPEARS_S = 10.0  # network file systems show a new file late
_STEP_S = 0.5


def require_shared(folder: Path) -> None:
    """Raise ConfigError unless every node of the joined cluster sees the existing ``folder`` and can write there.

    Ranks write checkpoints and predictions on their nodes, and this process reads them. On a node's own disk they
    would be lost. Raises MelanomaDistError for a node that does not answer.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    probe = folder / f".probe-{secrets.token_hex(8)}"
    probe.touch()
    try:
        answers = {node: _ask(node, str(probe)) for node in nodes}
        failing = sorted(nodes[node] for node, answer in answers.items() if not _answer(answer, nodes[node]))
    finally:
        probe.unlink(missing_ok=True)
    if failing:
        raise ConfigError.of(
            "runs", folder.parent,
            f"every node must write there; {_count(len(failing), 'node')} of {len(nodes)} cannot: {', '.join(failing)}",
            "Give the absolute path of a folder that all nodes share: NFS, EFS, Filestore, a ReadWriteMany volume.",
        )  # fmt: skip


def _reaches(probe: str) -> bool:
    """Whether this node sees the file ``probe`` and can write beside it."""
    path, end = Path(probe), time.monotonic() + _APPEARS_S
    while not path.exists():
        if time.monotonic() > end:
            return False
        time.sleep(_STEP_S)
    own = path.with_name(f"{path.name}-{secrets.token_hex(8)}")
    try:
        own.touch()
        own.unlink()
    except OSError:
        return False
    return True


def _ask(node: str, probe: str) -> ray.ObjectRef:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_reaches).remote(probe)


def _answer(answer: ray.ObjectRef, address: str) -> bool:
    try:
        return bool(ray.get(answer, timeout=_ANSWER_S))
    except RayError as error:
        raise MelanomaDistError(
            f"Node {address} of the cluster failed to run a small task ({type(error).__name__}). Install this program "
            "there, at the same path, with the same versions of Python and Ray. See cluster/README.md."
        ) from error


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
