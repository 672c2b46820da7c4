"""The files of cluster/, read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"


def text(name: str) -> str:
    return (CLUSTER / name).read_text()


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(text(name)))


def custom(name: str) -> dict[str, Any]:
    """The RayCluster or RayJob of a KubeRay file."""
    return next(document for document in documents(name) if document["apiVersion"] == "ray.io/v1")


def locked(package: str) -> str:
    """The version that requirements.lock pins."""
    found = re.search(rf"^{package}==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert found, package
    return found[1]
