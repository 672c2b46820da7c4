"""Compare ResNet50V2, 101V2 and 152V2 with Keras's own models, on random weights in Keras's own files.

    KERAS_BACKEND=torch python benchmarks/keras_resnet.py [--backbones resnet50v2 ...]

Needs `pip install keras h5py`; TensorFlow is not needed. Every tensor is random, also biases and running statistics.
Keras writes them in its legacy HDF5 layout, the program reads that file, and both compute features and logits of the
same images. ``--golden FILE`` also stores Keras's pooled features of resnet50v2, for the tests.
"""

from __future__ import annotations

import argparse
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.weights import KERAS_BACKBONES
from melanoma_dist.models.backbones import build_trunk

Floats = npt.NDArray[np.float32]
HEIGHT, WIDTH = 75, 97  # odd and unequal: paddings and strides show at the borders
_SMALL = 0.1  # of the last convolution of a block, so that the sum of 50 blocks stays near 1


def random_tensor(layer: str, weight: str, shape: tuple[int, ...]) -> Floats:
    """Draw the tensor of a Keras layer. It depends on the names alone."""
    generator = np.random.Generator(np.random.Philox(zlib.crc32(f"{layer}/{weight}".encode())))
    if weight == "kernel":
        scale = (2 / np.prod(shape[:-1])) ** 0.5 * (_SMALL if layer.endswith("_3_conv") else 1)
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)
    if weight in ("gamma", "moving_variance"):
        return generator.random(shape, dtype=np.float32) + np.float32(0.5)
    return generator.standard_normal(shape, dtype=np.float32) * np.float32(0.1)


def random_images() -> Floats:
    """Draw two images [2, H, W, 3], -1 to 1."""
    return np.random.Generator(np.random.Philox(1)).random((2, HEIGHT, WIDTH, 3), dtype=np.float32) * 2 - 1


def write_keras(backbone: str, path: Path) -> tuple[Floats, Floats]:
    """Let Keras write a file of weights. Returns its features [2, h, w, 2048] and logits [2, 1000]."""
    import h5py
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    build: Any = getattr(keras.applications, backbone.replace("resnet", "ResNet").replace("v2", "V2"))
    model = build(weights=None, input_shape=(HEIGHT, WIDTH, 3), classifier_activation=None)
    for layer in model.layers:
        for variable in layer.weights:
            variable.assign(random_tensor(layer.name, variable.name, tuple(variable.shape)))
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, model)
    both = keras.Model(model.input, [model.get_layer("post_relu").output, model.output])
    features, logits = (each.detach().numpy() for each in both(random_images(), training=False))
    return features, logits


def own_outputs(backbone: str, path: Path) -> tuple[Floats, Floats]:
    """Let the program read the file. Returns its features [2, 2048, h, w] and logits [2, 1000]."""
    import h5py

    images = torch.from_numpy(random_images()).permute(0, 3, 1, 2)
    trunk: Any = build_trunk(ModelConfig(backbone, str(path)), HEIGHT).eval()
    with h5py.File(path) as file, torch.no_grad():
        features = trunk.forward_features(images)
        classifier = [torch.from_numpy(file[f"predictions/predictions/{name}"][()]) for name in ("kernel", "bias")]
        logits = features.mean((2, 3)) @ classifier[0] + classifier[1]
    return features.numpy(), logits.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbones", nargs="+", default=KERAS_BACKBONES)
    parser.add_argument("--golden", type=Path, help="the .npy file to store Keras's pooled features of resnet50v2 in")
    options = parser.parse_args()
    print("backbone     features: largest, difference  logits: largest, difference")
    for backbone in options.backbones:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"{backbone}.h5")
            features, logits = write_keras(backbone, path)
            own_features, own_logits = own_outputs(backbone, path)
        differences = np.abs(own_features - features.transpose(0, 3, 1, 2)).max(), np.abs(own_logits - logits).max()
        print(
            f"{backbone:12} {np.abs(features).max():17.2f}, {differences[0]:.1e} "
            f"{np.abs(logits).max():21.2f}, {differences[1]:.1e}",
            flush=True,
        )
        if options.golden and backbone == "resnet50v2":
            np.save(options.golden, features.mean((1, 2)))


if __name__ == "__main__":
    main()
