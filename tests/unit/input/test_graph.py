from __future__ import annotations

import gc
import io
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from melanoma_dist.input.graph import Graph, GraphInput, InputFormat, evaluation_input, training_input
from melanoma_dist.input.stream import POLICIES, Parameters, parameters

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
FRAME = InputFormat(64, MEAN, STD)
UNIT = InputFormat(64, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # values 0 to 1, for geometry
ONE_LEVEL = 1 / 255 / min(STD)
Encoded = npt.NDArray[np.uint8]


def picture(width: int, height: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Smooth with some texture, as photographs are."""
    rng = np.random.default_rng(seed)
    cells = Image.fromarray(rng.integers(0, 256, (5, 6, 3), dtype=np.uint8)).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noisy = np.asarray(cells, dtype=np.float64) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).convert(mode)


def jpeg(image: Image.Image, **options: Any) -> Encoded:
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return np.frombuffer(file.getvalue(), dtype=np.uint8)


def normalised(pixels: npt.NDArray[np.uint8], frame: InputFormat) -> torch.Tensor:
    """[..., H, W, 3] bytes -> [..., 3, H, W]."""
    images = torch.from_numpy(pixels.copy()).movedim(-1, -3).float() / 255
    return (images - torch.tensor(frame.mean)[:, None, None]) / torch.tensor(frame.std)[:, None, None]


def reference(encoded: Encoded, frame: InputFormat) -> torch.Tensor:
    """Decoding and antialiased resizing by PIL, normalisation by PyTorch."""
    image = Image.open(io.BytesIO(encoded.tobytes())).convert("RGB")
    resized = image.resize((frame.size, frame.size), Image.Resampling.BILINEAR)
    return normalised(np.asarray(resized), frame)


def all_of(
    inputs: list[GraphInput], frame: InputFormat = FRAME, threads: int = 1, **options: Any
) -> list[torch.Tensor]:
    graph = Graph(lambda i: inputs[i] if i < len(inputs) else None, frame, len(inputs[0].encoded), threads, **options)
    return [images.clone() for images in graph]


def evaluated(*encoded: Encoded, frame: InputFormat = FRAME) -> torch.Tensor:
    return all_of([evaluation_input(list(encoded), frame)], frame)[0]


def drawn(count: int = 1, **values: object) -> Parameters:
    """The parameters of no augmentation, but for ``values``."""
    nothing = parameters(POLICIES["none"], 0, 0, 0, count)
    wide = {
        name: np.broadcast_to(np.asarray(value), getattr(nothing, name).shape).astype(getattr(nothing, name).dtype)
        for name, value in values.items()
    }
    return Parameters(**{**vars(nothing), **wide})


GENERATED = {
    "landscape": jpeg(picture(211, 139)),
    "portrait": jpeg(picture(123, 257, 1)),
    "odd and small": jpeg(picture(37, 41, 2)),
    "one side smaller": jpeg(picture(50, 91, 3)),
    "as large": jpeg(picture(64, 64, 4)),
    "much larger": jpeg(picture(1501, 1003, 5)),
    "grey": jpeg(picture(140, 90, 6, "L")),
    "progressive": jpeg(picture(180, 133, 7), progressive=True),
    "full chroma": jpeg(picture(181, 99, 8), subsampling=0),
    "poor": jpeg(picture(150, 111, 9), quality=30),
}


@pytest.mark.parametrize("kind", GENERATED)
@pytest.mark.parametrize("size", [64, 75])
def test_evaluation_is_what_pil_and_pytorch_compute(kind: str, size: int) -> None:
    frame = InputFormat(size, MEAN, STD)
    actual = evaluated(GENERATED[kind], frame=frame)[0]
    assert actual.shape == (3, size, size)
    assert actual.dtype == torch.float32
    assert (actual - reference(GENERATED[kind], frame)).abs().max() <= ONE_LEVEL + 1e-4


def test_evaluation_of_native_photographs(isic: Path) -> None:
    files = sorted((isic / "native").rglob("*.jpg"))
    assert files, "no native photographs"
    frame = InputFormat(224, MEAN, STD)
    for path in files[:: max(1, len(files) // 6)]:
        encoded = np.frombuffer(path.read_bytes(), dtype=np.uint8)
        difference = (evaluated(encoded, frame=frame)[0] - reference(encoded, frame)).abs().max()
        assert difference <= ONE_LEVEL + 1e-4, path.name


def test_an_image_is_the_same_alone_in_a_batch_and_in_padding() -> None:
    images = list(GENERATED.values())
    alone = torch.cat([evaluated(image) for image in images])
    assert torch.equal(evaluated(*images), alone)
    backwards = evaluated(*images[::-1])
    assert torch.equal(backwards.flip(0), alone)
    padded = evaluated(*images[:2], *[images[2]] * 6)
    assert torch.equal(padded, alone[[0, 1] + [2] * 6])


def test_training_without_augmentation_is_evaluation() -> None:
    images = list(GENERATED.values())
    nothing = parameters(POLICIES["none"], 3, 1, 0, len(images))
    trained = all_of([training_input(images, nothing, FRAME)])[0]
    assert (trained - evaluated(*images)).abs().max() < 1e-5
    turned = all_of([training_input(images, nothing, FRAME)], rotate=True)[0]
    # What a resize rounds to bytes, twice, turning does not round.
    assert (turned - evaluated(*images)).abs().max() <= 1.5 * ONE_LEVEL
    large = [name for name, encoded in GENERATED.items() if min(Image.open(io.BytesIO(encoded)).size) >= FRAME.size]
    exact = [list(GENERATED).index(name) for name in large]
    assert (turned - evaluated(*images))[exact].abs().max() < 1e-3


@pytest.mark.parametrize("rotate", [False, True])
def test_flips_are_those_of_pytorch(rotate: bool) -> None:
    images = [GENERATED["landscape"]] * 4
    flip = np.array([[0, 0], [1, 0], [0, 1], [1, 1]], dtype=bool)  # vertical, horizontal
    same, vertical, horizontal, both = all_of([training_input(images, drawn(4, flip=flip), FRAME)], rotate=rotate)[0]
    assert (same - evaluated(images[0])[0]).abs().max() < 1e-5
    tolerance = ONE_LEVEL + 1e-4
    assert (vertical - same.flip(1)).abs().max() <= tolerance
    assert (horizontal - same.flip(2)).abs().max() <= tolerance
    assert (both - same.flip(1, 2)).abs().max() <= tolerance
    assert (vertical - same).abs().max() > 10 * tolerance


def test_a_crop_is_the_window_of_the_image() -> None:
    original = picture(200, 160, 3)
    window = drawn(anchor=[[0.25, 0.1]], extent=[[0.5, 0.75]])
    actual = all_of([training_input([jpeg(original, quality=95)], window, UNIT)], UNIT)[0][0]
    decoded = Image.open(io.BytesIO(jpeg(original, quality=95).tobytes())).convert("RGB")
    cut = decoded.crop((20, 40, 170, 120)).resize((64, 64), Image.Resampling.BILINEAR)
    difference = (actual - normalised(np.asarray(cut), UNIT)).abs()
    assert difference.max() <= 2.01 / 255  # PIL weighs the outermost pixels a little differently
    assert difference.mean() <= 0.5 / 255


def test_rotation_invents_no_border() -> None:
    colour = (180, 90, 60)
    flat = jpeg(Image.new("RGB", (130, 90), colour), quality=95)
    angles = np.linspace(-180, 180, 73).astype(np.float32)
    policy = parameters(POLICIES["dermoscopy"], 0, 0, 0, 73)
    geometry = drawn(73, angle=angles, anchor=policy.anchor, extent=policy.extent, flip=policy.flip)
    images = all_of([training_input([flat] * 73, geometry, UNIT)], UNIT, rotate=True)[0]
    expected = evaluated(flat, frame=UNIT)[0, :, :1, :1]
    assert (images - expected).abs().max() <= 2.01 / 255


@pytest.mark.parametrize("angle", [30.0, -75.0, 90.0, 180.0])
def test_rotation_turns_as_pil_does(angle: float) -> None:
    original = jpeg(picture(160, 160, 4), quality=95)
    actual = all_of([training_input([original], drawn(angle=angle), UNIT)], UNIT, rotate=True)[0][0]
    turn = np.deg2rad(angle)
    side = int(np.ceil(64 * (abs(np.cos(turn)) + abs(np.sin(turn))) - 1e-3))
    large = Image.open(io.BytesIO(original.tobytes())).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    turned = np.asarray(large.rotate(angle, Image.Resampling.BILINEAR))
    at = (side - 64) // 2
    expected = normalised(turned[at : at + 64, at : at + 64], UNIT)
    other_way = normalised(
        np.asarray(large.rotate(-angle + 45, Image.Resampling.BILINEAR))[at : at + 64, at : at + 64], UNIT
    )
    close = (actual - expected)[:, 2:-2, 2:-2].abs().mean()
    assert close < 0.03  # half a pixel's shift of the cut is allowed
    assert (actual - other_way)[:, 2:-2, 2:-2].abs().mean() > 3 * close


def test_batches_are_channels_last() -> None:
    images = evaluated(*list(GENERATED.values())[:3])
    graph = Graph(lambda i: evaluation_input([GENERATED["grey"]] * 2, FRAME) if i < 1 else None, FRAME, 2, 1)
    (direct,) = list(graph)
    assert direct.is_contiguous(memory_format=torch.channels_last)
    assert images.shape == (3, 3, 64, 64)


def test_it_can_be_restarted_and_held_batches_keep_their_pixels() -> None:
    names = list(GENERATED)
    epoch = 0

    def feed(i: int) -> GraphInput | None:
        return evaluation_input([GENERATED[names[(i + epoch) % len(names)]]] * 2, FRAME) if i < 7 else None

    graph = Graph(feed, FRAME, 2, 1)
    single = {name: evaluated(GENERATED[name])[0] for name in names}
    held: list[torch.Tensor] = []
    for epoch in range(3):
        if epoch:
            graph.restart()
        taken = list(graph)
        assert len(taken) == 7
        held += taken
    expected = [names[(i + number) % len(names)] for number in range(3) for i in range(7)]
    for images, name in zip(held, expected, strict=True):
        assert torch.equal(images, torch.stack([single[name]] * 2))


def test_a_graph_goes_with_the_owner_of_its_feed() -> None:
    class Owner:
        def __init__(self) -> None:
            self.graph = Graph(self.feed, FRAME, 1, 1)

        def feed(self, i: int) -> GraphInput | None:
            return evaluation_input([GENERATED["grey"]], FRAME) if i < 1 else None

    owner = Owner()
    assert len(list(owner.graph)) == 1
    pipeline = weakref.ref(owner.graph._pipeline)
    del owner
    gc.collect()
    assert pipeline() is None


def test_threads_do_not_change_pixels() -> None:
    images = list(GENERATED.values())
    policy = parameters(POLICIES["dermoscopy"], 0, 0, 0, len(images))
    inputs = [training_input(images, policy, FRAME)]
    one, three = all_of(inputs, rotate=True), all_of(inputs, threads=3, rotate=True)
    assert torch.equal(one[0], three[0])


def test_colour_is_applied_to_the_pixels() -> None:
    image = GENERATED["landscape"]
    brighter = all_of([training_input([image], drawn(brightness=1.2), UNIT)], UNIT)[0]
    assert torch.allclose(brighter, 1.2 * evaluated(image, frame=UNIT), atol=1e-5)
