"""Published weights: folders of Hugging Face and of `weights fetch`, downloads, and machines without a network."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from timm.models import _registry

from melanoma_dist.cli import main
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.models import published
from melanoma_dist.models.backbones import build_trunk
from melanoma_dist.models.keras_resnet import TAG

from .test_keras_resnet import HEIGHT, keras_file, trunk  # noqa: F401  # fixtures

NAME = "test_resnet"
REPOSITORY = f"timm/{NAME}.r160_in1k"


@pytest.fixture
def snapshot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot of timm's repository in an otherwise empty cache of Hugging Face."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / f"models--{REPOSITORY.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("a" * 40)
    folder = repository / "snapshots" / ("a" * 40)
    folder.mkdir(parents=True)
    torch.manual_seed(3)
    save_file(timm.create_model(NAME).state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": NAME, "num_classes": 1000}))
    return folder


def use_hub(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """In place of Hugging Face: a server that hangs up. Yields a number per connection."""
    connections: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connections.append(len(connections))
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        use_hub(f"http://127.0.0.1:{listener.getsockname()[1]}", monkeypatch)
        yield connections
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def weight(weights: Path | str, backbone: str = NAME) -> torch.Tensor:
    return build_trunk(ModelConfig(backbone, str(weights)), 64).state_dict()["conv1.0.weight"]


def test_a_snapshot_and_its_folder_in_a_cache_are_weights(snapshot: Path) -> None:
    expected = weight(snapshot / "model.safetensors")
    repository = snapshot.parents[1]
    assert torch.equal(weight(snapshot), expected)
    assert torch.equal(weight(repository), expected)
    (repository / "refs" / "main").unlink()
    assert torch.equal(weight(repository), expected)
    torch.save(timm.create_model(NAME).state_dict(), snapshot / "pytorch_model.bin")
    (snapshot / "model.safetensors").unlink()
    assert not torch.equal(weight(repository), expected)


def test_a_folder_of_another_model_and_one_without_weights(snapshot: Path, tmp_path: Path) -> None:
    (snapshot / "config.json").write_text(json.dumps({"architecture": "tf_resnet"}))
    with pytest.raises(ConfigError, match=r"is of tf_resnet, as the config\.json beside it says.*--backbone tf_resnet"):
        weight(snapshot)
    with pytest.raises(ConfigError, match=r"has neither model\.safetensors nor pytorch_model\.bin"):
        weight(tmp_path)


def test_fetched_weights_serve_without_a_network(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_hub("http://127.0.0.1:9", monkeypatch)  # nobody listens; the cache has the weights
    assert main(["weights", "fetch", NAME, f"timm/{NAME}.r160_in1k", "--out", str(tmp_path / "out")]) == 0
    expected = weight(snapshot)
    moved = Path(shutil.move(tmp_path / "out", tmp_path / "moved"))
    shutil.rmtree(tmp_path / "hub")
    assert torch.equal(weight(moved), expected)
    assert torch.equal(weight(moved, f"{NAME}.r160_in1k"), expected)
    assert torch.equal(weight(moved / NAME), expected)


def test_a_failed_download_is_told_after_one_attempt(
    tmp_path: Path, server: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError) as caught:
        weight("imagenet")
    message = str(caught.value)
    assert f"model.safetensors of {REPOSITORY} at {constants.ENDPOINT}" in message
    assert f"weights fetch {NAME} --out DIR" in message
    assert server == [0]


def test_keras_weights_without_a_network_name_address_and_file(
    tmp_path: Path, server: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("h5py")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    publish(monkeypatch, f"{constants.ENDPOINT}/resnet50v2_notop.h5")
    with pytest.raises(ConfigError, match=r"http://127.*/resnet50v2_notop\.h5 could not be .*--weights resnet50v2_not"):
        build_trunk(ModelConfig("resnet50v2", "imagenet"), HEIGHT)
    assert server == [0]


def publish(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    own = _registry._model_pretrained_cfgs["resnet50v2"]
    monkeypatch.setitem(_registry._model_pretrained_cfgs, "resnet50v2", dataclasses.replace(own, url=url))


def test_keras_weights_are_downloaded_checked_and_kept(
    keras_file: Path,  # noqa: F811
    trunk: torch.nn.Module,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "cache"))
    handler = partial(SimpleHTTPRequestHandler, directory=str(keras_file.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        publish(monkeypatch, f"http://127.0.0.1:{server.server_address[1]}/{keras_file.name}")
        with pytest.raises(
            ConfigError, match=r"has MD5 [0-9a-f]{32}, and Keras's file fac2f116257151a9d068a22e544a4917"
        ):
            build_trunk(ModelConfig("resnet50v2", "imagenet"), HEIGHT)
        assert not list((tmp_path / "cache").rglob("*.safetensors"))
        digest = hashlib.md5(keras_file.read_bytes()).hexdigest()  # noqa: S324
        monkeypatch.setitem(published._MD5, "resnet50v2", digest)
        first = build_trunk(ModelConfig("resnet50v2", "imagenet"), HEIGHT)
        server.shutdown()
    again = build_trunk(ModelConfig("resnet50v2", "imagenet"), HEIGHT)
    expected = trunk.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in first.state_dict().items())
    assert all(torch.equal(value, expected[key]) for key, value in again.state_dict().items())
    assert [path.name for path in (tmp_path / "cache" / "checkpoints").glob("[!.]*")] == [
        f"resnet50v2.{TAG}.safetensors"
    ]
