"""Draws skin lesions as a dermatoscope shows them: a model can learn from them, and classes overlap enough for errors.

A lesion is drawn once, in its own frame, from attributes that its diagnosis makes more or less likely: asymmetry, an
irregular border, several colours, a blue-white veil, a network, globules, vessels, a white patch. Each photograph of it
has another viewpoint, light and skin crop, with hair, noise and vignette. No attribute occurs in one diagnosis only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

Array = npt.NDArray[np.floating[Any]]

_FRAME = 112  # pixels of a lesion's own square frame, which reaches from -1.5 to 1.5 of its mean radius
_REACH = 1.5
_PALETTE = np.array(  # how strongly a pigment darkens red, green and blue of the skin below
    [
        [0.80, 0.66, 0.56],  # light brown
        [0.58, 0.42, 0.34],  # brown
        [0.38, 0.27, 0.25],  # dark brown
        [0.22, 0.18, 0.20],  # black
        [0.86, 0.52, 0.50],  # red
        [0.55, 0.57, 0.68],  # blue-grey
    ],
    dtype=np.float32,
)


@dataclass(frozen=True)
class _Kind:
    """Typical attributes of a diagnosis, each from 0 (none) to 1 (much)."""

    asymmetry: float = 0.3
    border: float = 0.3
    colours: float = 0.3
    veil: float = 0.08
    network: float = 0.3
    globules: float = 0.2
    vessels: float = 0.05
    patch: float = 0.05
    cysts: float = 0.05
    red: float = 0.1
    dark: float = 0.5
    sharp: float = 0.5
    size: float = 0.5


_KINDS = {
    "MEL": _Kind(
        asymmetry=0.72, border=0.70, colours=0.75, veil=0.52, network=0.42, globules=0.35, dark=0.55, size=0.6
    ),
    "NV": _Kind(asymmetry=0.28, border=0.28, colours=0.28, network=0.45, globules=0.30, dark=0.5, size=0.45),
    "BCC": _Kind(border=0.45, colours=0.35, veil=0.3, network=0.05, vessels=0.75, red=0.65, dark=0.25, sharp=0.35),
    "AK": _Kind(border=0.5, network=0.15, vessels=0.3, cysts=0.35, red=0.75, dark=0.15, sharp=0.1, size=0.55),
    "BKL": _Kind(border=0.42, colours=0.42, network=0.2, globules=0.3, cysts=0.7, dark=0.5, sharp=0.85, size=0.6),
    "DF": _Kind(network=0.55, patch=0.8, red=0.3, dark=0.35, sharp=0.25, size=0.4),
    "VASC": _Kind(border=0.3, network=0.0, globules=0.75, red=1.0, dark=0.6, sharp=0.8, size=0.4),
    "SCC": _Kind(asymmetry=0.5, border=0.6, network=0.05, vessels=0.5, patch=0.5, cysts=0.3, red=0.75, dark=0.3),
}


@dataclass(frozen=True)
class Lesion:
    """A lesion in its own frame: ``tint`` [y, x, 3] multiplies the skin, ``light`` [y, x] is added to it."""

    tint: Array
    light: Array
    skin: Array
    """The colour of the skin around it [3], 0 to 1."""
    scale: float
    """Its mean radius as a share of the photograph's shorter side."""


def draw_lesion(rng: np.random.Generator, kind: str) -> Lesion:
    """Draw a lesion of a diagnosis, one of `labels.DIAGNOSES`; the result depends only on ``rng``."""
    # Around the typical attributes with a wide spread, so that diagnoses overlap.
    a = _Kind(**{name: float(np.clip(rng.normal(mean, 0.19), 0, 1)) for name, mean in vars(_KINDS[kind]).items()})
    y, x = np.mgrid[-_REACH : _REACH : _FRAME * 1j, -_REACH : _REACH : _FRAME * 1j].astype(np.float32)
    inside, depth = _outline(rng, a, x, y)
    colour = _colours(rng, a)
    structure = _structures(rng, a, x, y, depth)
    tint = 1 - inside[..., None] * (1 - np.clip(colour * structure[..., None], 0, 1))
    tint *= 1 - _vessels(rng, a)[..., None] * np.array([0.05, 0.45, 0.4], dtype=np.float32)
    light = inside * (_patch(rng, a, x, y) + _dots(rng, 0.35 * a.cysts, 2.2))
    tone = rng.uniform(0, 1)
    skin = np.array([0.90, 0.70, 0.60]) * (1 - tone) + np.array([0.72, 0.51, 0.41]) * tone
    skin = skin + rng.normal(0, 0.025, 3)
    return Lesion(tint, light, skin.astype(np.float32), 0.15 + 0.20 * a.size)


def _noise(rng: np.random.Generator, cells: int, width: int = _FRAME, height: int = _FRAME) -> Array:
    """Smooth noise of about unit deviation, [height, width], with ``cells`` features across."""
    grid = Image.fromarray(1.4 * rng.standard_normal((cells + 2, cells + 2), dtype=np.float32))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32)


def _outline(rng: np.random.Generator, a: _Kind, x: Array, y: Array) -> tuple[Array, Array]:
    """How much of each pixel is lesion (0 to 1), and how deep inside it lies (1 at the centre, 0 at the border)."""
    angle = np.linspace(-np.pi, np.pi, 361, dtype=np.float32)
    radius = 1 + 0.34 * a.asymmetry * np.cos(angle - rng.uniform(0, 2 * np.pi))
    radius += 0.12 * rng.random() * np.cos(2 * (angle - rng.uniform(0, np.pi)))
    for waves in range(3, 11):
        height = 0.26 * a.border * rng.normal() / waves**0.8
        radius += height * np.cos(waves * angle + rng.uniform(0, 2 * np.pi))
    reach = np.interp(np.arctan2(y, x), angle, np.clip(0.82 * radius, 0.25, 1.35)).astype(np.float32)
    depth = 1 - np.hypot(x, y) / reach + 0.10 * a.border * _noise(rng, 14)
    softness = 0.04 + 0.22 * (1 - a.sharp)
    inside = 1 / (1 + np.exp(-np.clip(depth / softness, -30, 30) * 2.2))
    # Fade out before the edge of the frame, or a photograph would show it.
    return inside * np.clip((_REACH - np.maximum(abs(x), abs(y))) / 0.15, 0, 1), depth


def _colours(rng: np.random.Generator, a: _Kind) -> Array:
    """The pigments of a lesion, float32 [y, x, 3]: one main colour and islands of others."""
    brown = np.clip(np.array([1.1, 0.6, -0.1, -0.9]) + np.array([-2.0, 0.2, 1.6, 1.8]) * (a.dark - 0.2), -2, 3)
    liking = np.concatenate([brown, [3.2 * a.red - 1.0, 2.4 * a.veil - 0.7]])
    spread = 0.25 + 1.7 * a.colours
    islands = np.stack([_noise(rng, int(rng.integers(3, 6))) for _ in liking], axis=-1)
    weight = np.exp(2.1 * (liking.astype(np.float32) + spread * islands))
    colours: Array = (weight / weight.sum(axis=-1, keepdims=True)) @ _PALETTE
    return colours


def _structures(rng: np.random.Generator, a: _Kind, x: Array, y: Array, depth: Array) -> Array:
    """The modulation of the pigment, around 1: a network of lines, globules, mottling."""
    bend = 0.10 + 0.25 * a.asymmetry
    u, v = x + bend * _noise(rng, 4) * 0.3, y + bend * _noise(rng, 4) * 0.3
    pitch = rng.uniform(20, 27)
    # Three plane waves make a honeycomb: light holes where all of them peak, dark lines between.
    waves = [np.cos(pitch * (u * np.cos(turn) + v * np.sin(turn))) for turn in (0.0, 2.0944, 4.1888)]
    net = np.clip(0.75 - sum(waves[1:], waves[0]), 0, 1.5) * np.clip(1.1 - depth, 0.2, 1)
    patchy = 1 / (1 + np.exp(-(1.5 + 2 * a.colours * _noise(rng, 4))))
    modulation: Array = (
        1.06 - 0.50 * a.network * net * patchy - _dots(rng, 0.55 * a.globules, 1.6) + 0.05 * _noise(rng, 40)
    )
    return modulation


def _dots(rng: np.random.Generator, strength: float, threshold: float) -> Array:
    """Scattered round spots of the given strength: the peaks of a noise of small features."""
    spots: Array = np.clip((_noise(rng, 26) - threshold + 0.4) * 3, 0, 1)
    return strength * spots


def _patch(rng: np.random.Generator, a: _Kind, x: Array, y: Array) -> Array:
    """A pale scar-like centre."""
    cx, cy = rng.normal(0, 0.12), rng.normal(0, 0.12)
    shape: Array = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / 0.12 + 0.3 * _noise(rng, 8))
    return 0.55 * max(0.0, a.patch - 0.2) * shape


def _vessels(rng: np.random.Generator, a: _Kind) -> Array:
    """Branching red lines, 0 to 1."""
    canvas = Image.new("L", (_FRAME, _FRAME))
    draw = ImageDraw.Draw(canvas)
    for _ in range(int(8 * max(0.0, a.vessels - 0.15))):
        start = _FRAME * (0.5 + rng.uniform(-0.28, 0.28, 2))
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.45, 14))
        steps = 3.0 * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        path = start + np.cumsum(steps, axis=0)
        draw.line([(float(px), float(py)) for px, py in path], fill=230, width=1)
        branch = path[6] + np.cumsum(steps[6:] @ np.array([[0.7, 0.7], [-0.7, 0.7]]), axis=0)
        draw.line([(float(px), float(py)) for px, py in branch], fill=190, width=1)
    return np.asarray(canvas, dtype=np.float32) / 255


def photograph(rng: np.random.Generator, lesion: Lesion) -> npt.NDArray[np.uint8]:
    """A new photograph of a lesion, uint8 [y, x, 3], 160x120 to 200x150 pixels."""
    width = int(rng.integers(160, 201))
    height = width * 3 // 4
    y, x = np.mgrid[-1 : 1 : height * 1j, -4 / 3 : 4 / 3 : width * 1j].astype(np.float32)
    tint, light = _view(rng, lesion, width, height)
    gradient = 1 + rng.normal(0, 0.04) * x + rng.normal(0, 0.05) * y
    grain = _noise(rng, 48, width, height)
    skin = lesion.skin * (gradient * (1 + 0.02 * grain) * (1 - 0.02 * _freckles(rng, width, height)))[..., None]
    scene = (skin * tint + light[..., None] * (0.95 - skin * tint)).astype(np.float32)
    scene *= _hair(rng, width, height)[..., None]
    vignette = 1 - rng.uniform(0.05, 0.30) * np.clip(np.hypot(x, y) - 0.45, 0, None) ** 2
    lamp = rng.normal(1.0, 0.05) * (1 + rng.normal(0, 0.025, 3))
    scene *= vignette[..., None] * lamp.astype(np.float32)
    scene += 0.012 * rng.standard_normal(scene.shape, dtype=np.float32)
    if rng.random() < 0.12:
        scene *= (np.hypot(x, y) < rng.uniform(1.15, 1.5))[..., None]  # the round edge of the instrument
    pixels: npt.NDArray[np.uint8] = (255 * np.clip(scene, 0, 1)).astype(np.uint8)
    return pixels


def _view(rng: np.random.Generator, lesion: Lesion, width: int, height: int) -> tuple[Array, Array]:
    """Tint and light of a lesion, rotated, scaled and shifted into a photograph."""
    turn = rng.uniform(0, 2 * np.pi)
    pixels_per_radius = lesion.scale * height * rng.uniform(0.85, 1.2) * 1.3
    zoom = _FRAME / (2 * _REACH) / pixels_per_radius
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    cx, cy = width / 2 + rng.normal(0, 0.05) * width, height / 2 + rng.normal(0, 0.05) * height
    middle = _FRAME / 2
    matrix = (cos, -sin, middle - cos * cx + sin * cy, sin, cos, middle - sin * cx - cos * cy)
    # Four bands in one image, which Pillow calls CMYK. Outside the frame they are 0: bare skin.
    bands = np.concatenate([1 - lesion.tint, lesion.light[..., None]], axis=-1)
    frame = Image.fromarray((255 * np.clip(bands, 0, 1)).astype(np.uint8), "CMYK")
    view = frame.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    inverse = np.asarray(view, dtype=np.float32) / 255
    return 1 - inverse[..., :3], inverse[..., 3]


def _freckles(rng: np.random.Generator, width: int, height: int) -> Array:
    """Faint brown spots in the skin, 0 to 3, in some people many and in most none."""
    spots: Array = np.clip(_noise(rng, 10, width, height) - np.float32(rng.uniform(1.2, 3.0)), 0, 1)
    return 3 * spots


def _hair(rng: np.random.Generator, width: int, height: int) -> Array:
    """The light that hairs let through: 1, and less along thin curves."""
    canvas = Image.new("L", (2 * width, 2 * height), 255)
    draw = ImageDraw.Draw(canvas)
    count = rng.poisson(7) if rng.random() < 0.4 else 0
    common = rng.uniform(0, np.pi)
    for _ in range(count):
        heading = common + rng.normal(0, 0.4) + np.linspace(0, rng.normal(0, 0.9), 16)
        steps = rng.uniform(6, 14) * np.stack([np.cos(heading), np.sin(heading)], axis=1)
        path = rng.uniform(0, 1, 2) * (2 * width, 2 * height) + np.cumsum(steps, axis=0) - 8 * steps[0]
        draw.line(
            [(float(px), float(py)) for px, py in path], fill=int(rng.integers(50, 140)), width=int(rng.integers(1, 4))
        )
    small = canvas.resize((width, height), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32) / 255
