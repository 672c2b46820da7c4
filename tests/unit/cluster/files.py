"""Read the files of cluster/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"


def read_text(name: str) -> str:
    return (CLUSTER / name).read_text()


def read_documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(read_text(name)))


def ray_document(name: str) -> dict[str, Any]:
    """Return the RayCluster or RayJob of a KubeRay file."""
    return next(document for document in read_documents(name) if document["apiVersion"] == "ray.io/v1")


def locked_version(package: str) -> str:
    """Return the version that requirements.lock pins."""
    match = re.search(rf"^{package}==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert match, package
    return match[1]
