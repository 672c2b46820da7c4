"""A folder for Hugging Face: the trunk of each fold as timm loads it, and beside it what this program needs to predict.

config.json              how to rebuild the ensemble, with the hash of every file that it takes
config.yaml              the configuration of the run, without the names of folders
decision_rules.json      calibration and operating points
fold-<i>/                config.json and model.safetensors: the trunk; head.safetensors: what follows it
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from melanoma_dist.artifacts.decision_rules import read_decision_rules, write_decision_rules
from melanoma_dist.artifacts.records import read_record, write_record
from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.places import DECISION_RULES
from melanoma_dist.config.run import RunConfig, nested
from melanoma_dist.config.saved import saved_config
from melanoma_dist.errors import DataError, MelanomaDistError
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.models.backbones import published_input
from melanoma_dist.models.classifier import Classifier, build_classifier
from melanoma_dist.models.hub import CONFIG, WEIGHTS, read_trunk, trunk_difference, write_trunk
from melanoma_dist.storage.atomic import sha256
from melanoma_dist.storage.tensors import require_finite
from melanoma_dist.train.fold_data import input_format_of

RUN_CONFIG, HEAD = "config.yaml", "head.safetensors"
SCHEMA = 1
_TRUNK = "trunk."
_REMEDY = "Fetch the folder again."
_LARGEST_DIFFERENCE = 1e-4  # of a feature of a trunk that timm has built again


@dataclass(frozen=True)
class HubConfig:
    """``config.json`` of the folder."""

    data_fingerprint: str
    shorter_side: int
    """Pixels to which the run's data set reduced the shorter side of images."""
    files: dict[str, str]
    """The sha256 of each file that the ensemble takes, by its path in the folder."""
    library_name: str = "melanoma-dist"
    schema: int = SCHEMA


def write_hub(run: TrainedRun, ensemble: Ensemble, folder: Path) -> None:
    """Write the folder. Raises MelanomaDistError if timm builds another trunk from it."""
    (folder / RUN_CONFIG).write_text(yaml.safe_dump(nested(_portable(run.config)), sort_keys=False))
    write_decision_rules(folder, run.decision_rules)
    for unit in ensemble.units:
        (folder / f"fold-{unit.fold}").mkdir()
        _write_fold(
            ensemble.fold_model(unit.fold), run.config, folder / f"fold-{unit.fold}", input_format_of(unit).size
        )
    files = {name: sha256(folder / name) for name in _files(run.config)}
    write_record(folder / CONFIG, HubConfig(run.fingerprint, run.image_size, files))


def _portable(config: RunConfig) -> RunConfig:
    """A configuration without folders, and without settings of the machine that it was trained on."""
    plain = RunConfig()
    weights = config.model.weights if config.model.weights in ("imagenet", "none") else "none"
    return replace(
        config, name=None, runs=plain.runs, mirror=None, track="none", data=replace(config.data, data=None),
        model=replace(config.model, weights=weights), hardware=HardwareConfig(), fault_tolerance=FaultToleranceConfig(),
    )  # fmt: skip


def _write_fold(model: Classifier, config: RunConfig, folder: Path, size: int) -> None:
    image_format = replace(published_input(config.model.backbone), size=size)
    write_trunk(model.trunk, folder, config.model.backbone, image_format)
    head = {key: value.contiguous() for key, value in model.state_dict().items() if not key.startswith(_TRUNK)}
    save_file(head, folder / HEAD, {"format": "pt"})
    if reason := _why_not_rebuilt(model.trunk, folder, size):
        rule = f"timm does not build the trunk of {config.model.backbone} again from its files ({reason})"
        raise MelanomaDistError(f"--format hub: {rule}. No file was kept. Type --format onnx or --format torch.")


def _why_not_rebuilt(trunk: nn.Module, folder: Path, size: int) -> str:
    """Why timm does not build the trunk of a folder; empty if it does."""
    try:
        difference = trunk_difference(trunk, read_trunk(folder), size)
    except Exception as error:  # its models raise a dozen kinds for weights or arguments that they do not take
        return (" ".join(str(error).split()) or type(error).__name__)[:200]
    return "" if difference <= _LARGEST_DIFFERENCE else f"a feature differs by {difference:.2g}"


def _files(config: RunConfig) -> list[str]:
    folds = [f"fold-{fold}/{name}" for fold in range(config.data.folds) for name in (CONFIG, WEIGHTS, HEAD)]
    return [RUN_CONFIG, DECISION_RULES, *folds]


def load_hub(folder: Path, gpus: int | None = 0, threads: int | None = None) -> Ensemble:
    """The ensemble of an exported folder. Raises DataError for files that are missing, corrupt or changed."""
    about = read_record(folder / CONFIG, HubConfig, _REMEDY, (SCHEMA,))
    _check_hashes(folder, about, [RUN_CONFIG, DECISION_RULES])
    config = saved_config(folder / RUN_CONFIG)
    _check_hashes(folder, about, _files(config))
    return _HubEnsemble(folder, config, about, gpus, threads)


def _check_hashes(folder: Path, about: HubConfig, names: list[str]) -> None:
    for name in names:
        try:
            digest = sha256(folder / name)
        except OSError as error:
            raise DataError(f"{folder / name}: cannot be read ({error.strerror}). {_REMEDY}") from error
        if about.files.get(name) != digest:
            raise DataError(
                f"{folder / name}: is not the file that was exported ({CONFIG} has another hash). {_REMEDY}"
            )


class _HubEnsemble(Ensemble):
    """An ensemble whose weights lie in a folder of Hugging Face's kind."""

    def __init__(
        self, folder: Path, config: RunConfig, about: HubConfig, gpus: int | None, threads: int | None
    ) -> None:
        rules, world = read_decision_rules(folder), one_process(gpus, threads)
        super().__init__(folder, config, about.data_fingerprint, rules, about.shorter_side, world)
        self._files = about.files

    @cached_property
    def weights_sha256(self) -> dict[int, str]:
        """The sha256 of each fold's trunk."""
        return {unit.fold: self._files[f"fold-{unit.fold}/{WEIGHTS}"] for unit in self.units}

    def fold_model(self, fold: int) -> Classifier:
        """The model of one fold with its weights, on the CPU. Raises DataError for weights of another model."""
        unit = self.units[fold]
        config, size = unit.config, input_format_of(unit).size
        model = build_classifier(config.model, size, len(config.data.label_set()), config.seed, weights="none")
        try:
            _load(model, unit.folder)
        except (OSError, SafetensorError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DataError(
                f"{unit.folder}: its weights are corrupt, or of another model ({reason}). {_REMEDY}"
            ) from error
        return model


def _load(model: nn.Module, folder: Path) -> None:
    trunk = {f"{_TRUNK}{key}": value for key, value in load_file(folder / WEIGHTS).items()}
    model.load_state_dict(trunk | load_file(folder / HEAD))
    require_finite(model.state_dict())
