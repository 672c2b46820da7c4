from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from melanoma_dist import record
from melanoma_dist.dist import cluster
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep import command

from ..samples import config


def test_other_code_is_refused_before_any_configuration_pays_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record.write_json(tmp_path / "sweep.json", {"identity": {}, "made_with": {**record.made_with(), "code": "other"}})
    settings: Any = SimpleNamespace(run=config(), budget_seconds=lambda: None)
    ground: Any = SimpleNamespace(folder=tmp_path)
    conductor: Any = SimpleNamespace(over=lambda: False)
    journal: Any = SimpleNamespace(records=[])
    monkeypatch.setattr(cluster, "joined", lambda *_: pytest.fail("it trains"))
    with pytest.raises(ConfigError, match=r"begun with other code or libraries \(code: other then.*--accept-changes"):
        command._conduct(settings, ground, conductor, journal)
