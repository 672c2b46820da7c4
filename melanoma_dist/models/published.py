"""Published weights: those that Keras publishes, and whether those that timm publishes can be fetched.

Keras's file is downloaded once, compared with the hash that Keras has for it, and kept as safetensors where timm and
PyTorch keep theirs. Without a network, a message comes at once: the clients' own retries take minutes.
"""

from __future__ import annotations

import hashlib
import re
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import save_file
from torch import nn

from melanoma_dist import console
from melanoma_dist.data.download.partial_file import PartialFile
from melanoma_dist.data.download.transfer import Cancellation, RetryPolicy, Transfer
from melanoma_dist.errors import ConfigError, DownloadError
from melanoma_dist.models.keras_resnet import TAG
from melanoma_dist.models.keras_weights import read_keras
from melanoma_dist.models.weights import first_line
from melanoma_dist.storage import atomic
from melanoma_dist.storage.locks import wait_for_lock

_MD5 = {
    "resnet50v2": "fac2f116257151a9d068a22e544a4917",
    "resnet101v2": "c0ed64b8031c3730f411d2eb4eea35b5",
    "resnet152v2": "ed17cf2e0169df9d443503ef94b23b33",
}
"""Of Keras's files without the classifier: ``WEIGHTS_HASHES`` in `keras/src/applications/resnet.py`."""
_POLICY = RetryPolicy(connect_s=10.0, attempts_unreachable=1)
_PROBE_S = 10.0  # to the first answer of Hugging Face
_FILES = ("model.safetensors", "pytorch_model.bin")  # in timm's order


def keras_file(trunk: nn.Module, name: str) -> Path:
    """The file with Keras's weights of a trunk, under the trunk's own names. Downloads and converts it once.

    Raises ConfigError without a network, for another file than Keras's, and without the package that reads it.
    """
    folder = Path(torch.hub.get_dir(), "checkpoints")
    converted = folder / f"{name}.{TAG}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with wait_for_lock(folder / f".{name}.lock", lambda: None):
            if not converted.is_file():
                _fetch_keras(trunk, name, converted)
    except OSError as error:
        rule = f"the published weights of {name} cannot be kept in {folder} ({error.strerror or error})"
        raise ConfigError.of("weights", "imagenet", rule, "Set TORCH_HOME to another folder.") from error
    return converted


def _fetch_keras(trunk: nn.Module, name: str, converted: Path) -> None:
    url = str(timm.models.get_pretrained_cfg(name).url)
    if find_spec("h5py") is None:
        rule = f"the published weights of {name} need the package h5py, which is not installed"
        install = (
            f"Type `pip install 'melanoma-dist[keras]'`. Without a network, also bring {url} and --weights FILE.h5."
        )
        raise ConfigError.of("weights", "imagenet", rule, install)
    part = _download(url, converted.parent)
    _require_md5(part, _MD5[name], url)
    state = read_keras(part.path, trunk.state_dict(), f"Download {url} again.")
    atomic.write_file(converted, lambda path: save_file(state, path, {"format": "pt"}))
    part.remove()


def _download(url: str, folder: Path) -> PartialFile:
    file = url.rpartition("/")[2]
    part = PartialFile(folder / file)
    try:
        with console.phase(f"downloading {file}"):
            Transfer(file, url, part, _POLICY, Cancellation(), lambda _: None, console.info).run()
    except DownloadError as error:
        cause = re.split(r"; no answer|, from https?://", str(error).removeprefix(f"{file}: "))[0]
        raise ConfigError.of(
            "weights", "imagenet", f"{url} could not be downloaded ({cause})",
            f"Without a network, download it elsewhere, bring the file here and type --weights {file}.",
        ) from error  # fmt: skip
    return part


def _require_md5(part: PartialFile, expected: str, url: str) -> None:
    with part.path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if digest != expected:
        part.remove()
        rule = f"{url} has MD5 {digest}, and Keras's file {expected}: it is another file, or was damaged on its way"
        raise ConfigError.of("weights", "imagenet", rule, "Run the command again.")


def require_reachable(backbone: str, name: str) -> None:
    """Raise ConfigError, at once, if timm would have to download weights from Hugging Face and cannot."""
    published = timm.models.get_pretrained_cfg(name)
    if published is None or not published.hf_hub_id:
        return
    repository, _, revision = published.hf_hub_id.partition("@")
    files = (published.hf_hub_filename,) if published.hf_hub_filename else _FILES
    if any(isinstance(try_to_load_from_cache(repository, file, revision=revision or None), str) for file in files):
        return
    try:
        get_hf_file_metadata(hf_hub_url(repository, files[0], revision=revision or None), timeout=_PROBE_S)
    except EntryNotFoundError:  # an older format, which timm asks for next
        return
    except Exception as error:  # HTTP clients differ between versions, and so do their errors
        reason = f"{files[0]} of {repository} at {constants.ENDPOINT}: {first_line(error)}"
        raise fetch_error(backbone, name, reason) from error


def fetch_error(backbone: str, name: str, reason: str) -> ConfigError:
    """The error of published weights that did not arrive."""
    return ConfigError.of(
        "weights", "imagenet", f"the published weights of {name} could not be fetched ({reason})",
        f"Without a network, run `{console.program()} weights fetch {backbone} --out DIR` elsewhere, bring the folder "
        "here and type --weights DIR. A copy of the repository, or its folder in a cache of Hugging Face, will do too.",
    )  # fmt: skip
