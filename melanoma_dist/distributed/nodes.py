"""Whether every node of a cluster reaches the run's folder, asked of each before anything is trained."""

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

    Ranks write checkpoints and predictions wherever they run, and this process reads them: a folder of one node's own
    disk would lose them. Raises MelanomaDistError for a node that does not answer.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    sign = folder / f".seen-{secrets.token_hex(8)}"
    sign.touch()
    try:
        asked = {node: _ask(node, str(sign)) for node in nodes}
        blind = sorted(nodes[node] for node, answer in asked.items() if not _answer(answer, nodes[node]))
    finally:
        sign.unlink(missing_ok=True)
    if blind:
        raise ConfigError.of(
            "runs", folder.parent,
            f"every node writes there, and {_count(len(blind), 'node')} of {len(nodes)} cannot: {', '.join(blind)}",
            "Name a folder, by its absolute path, that all nodes share: NFS, EFS, Filestore, a ReadWriteMany volume.",
        )  # fmt: skip


def _reaches(sign: str) -> bool:
    """Whether this node sees the file and can write beside it."""
    path, end = Path(sign), time.monotonic() + _APPEARS_S
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


def _ask(node: str, sign: str) -> ray.ObjectRef:
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=there)(_reaches).remote(sign)


def _answer(answer: ray.ObjectRef, address: str) -> bool:
    try:
        return bool(ray.get(answer, timeout=_ANSWER_S))
    except RayError as error:
        raise MelanomaDistError(
            f"Node {address} of the cluster does not run even a small task ({type(error).__name__}). "
            "Does it have this program, at the same place, with the same Python and Ray? See cluster/README.md."
        ) from error


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
