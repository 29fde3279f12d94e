"""A predicted video that a person can watch: frames in grey, outlines in colour, GIF or MP4.

T frames, H, W. Below each frame stand its number, `ED` and `ES` where they are known, and the
labels' names in their colours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont
from scipy import ndimage

from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.films import write_film
from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.overlay import COLORS

Pixels = npt.NDArray[np.uint8]
SMALLEST, LARGEST = 256, 512
"""Pixels of the shorter side on the screen, at least and at most."""

OUTLINE = 2
"""Pixels that an outline is wide."""

LINE = 16
"""Pixels of a line of text."""

FPS = 25.0
"""Frames per second where they are not known."""

FASTEST = 50.0
"""Frames per second that a GIF can have; browsers take less than 20 ms for 100."""

LASTS_S = 2.0
"""Seconds that a video takes at least: a shorter one is slowed down."""


@dataclass(frozen=True, kw_only=True)
class LabelledVideo:
    """What an overlay shows."""

    image: FloatArray
    """(C, T, H, W); of three channels all are shown, as colours, else the first."""

    label: LabelMap
    """(T, H, W)."""

    spacing: tuple[float, float]
    """Along H and W, in any unit."""

    facts: VideoFacts
    names: Mapping[int, str]
    """Of the labels; one without a name is called by its number."""


def write_overlay(video: LabelledVideo, path: Path) -> None:
    """Write a video to watch, `.gif` or `.mp4`, whole or not at all.

    Raises:
        UsageError: MP4 is wanted and PyAV is not installed.
    """
    frames = np.stack(list(overlay_frames(video)))
    fps = playing_rate(video.facts, len(frames))
    if path.suffix == ".mp4":
        write_film(frames, path, fps)
        return
    pictures = [Image.fromarray(frame) for frame in frames]
    with atomic_path(path) as temporary:
        pictures[0].save(
            temporary, save_all=True, append_images=pictures[1:], loop=0,
            duration=round(1000 / fps),
        )  # fmt: skip


def playing_rate(facts: VideoFacts, frames: int) -> float:
    """Return how many frames per second are shown: as taken, or fewer so that it lasts a while."""
    return min(facts.fps or FPS, FASTEST, max(frames, 1) / LASTS_S)


def overlay_frames(video: LabelledVideo) -> Iterator[Pixels]:
    """Yield the frames, (h, w, 3) each and all of one size."""
    height, width = _size(video)
    shown = _in_bytes(video.image)
    values = [int(value) for value in np.unique(video.label) if value > 0]
    for t, label in enumerate(video.label):
        picture = Image.fromarray(shown[t]).resize((width, height), Image.Resampling.BILINEAR)
        pixels = np.array(picture)
        outlined = Image.fromarray(label.astype(np.uint8))
        _draw_outlines(pixels, np.array(outlined.resize((width, height), Image.Resampling.NEAREST)))
        yield np.concatenate([pixels, _caption(video, t, width, values)])


def _size(video: LabelledVideo) -> tuple[int, int]:
    """Return height and width on the screen, pixels square and both sides even."""
    height, width = video.label.shape[1:]
    finest = min(video.spacing)
    sides = [n * s / finest for n, s in zip((height, width), video.spacing, strict=True)]
    scale = np.clip(min(sides), SMALLEST, LARGEST) / min(sides)
    tall, wide = (2 * max(1, round(scale * side / 2)) for side in sides)
    return tall, wide


def _in_bytes(image: FloatArray) -> Pixels:
    """Return frames (T, H, W, 3), black and white at percentiles 0.5 and 99.5."""
    chosen = image if len(image) == 3 else np.repeat(image[:1], 3, axis=0)
    low, high = np.percentile(chosen, (0.5, 99.5))
    scaled = np.clip((chosen - low) / max(high - low, 1e-6), 0, 1)
    return np.ascontiguousarray(np.moveaxis(255 * scaled, 0, -1).astype(np.uint8))


def _draw_outlines(pixels: Pixels, label: LabelMap) -> None:
    """Colour the inner border of each label; `pixels` is changed."""
    for value in np.unique(label):
        if value > 0:
            mask = label == value
            pixels[mask & ~ndimage.binary_erosion(mask, iterations=OUTLINE)] = _color(int(value))


def _caption(video: LabelledVideo, t: int, width: int, values: list[int]) -> Pixels:
    """Return what stands below a frame, (2 lines, w, 3)."""
    strip = Image.new("RGB", (width, 2 * LINE))
    draw = ImageDraw.Draw(strip)
    font = ImageFont.load_default()
    phases = {"ED": video.facts.ed, "ES": video.facts.es}
    marks = " ".join(phase for phase, frame in phases.items() if frame == t)
    text = f"frame {t}/{len(video.label) - 1}  {marks}".rstrip()
    draw.text((4, 2), text, "white", font)
    left = 4.0
    for value in values:
        name = video.names.get(value, str(value))
        draw.text((left, LINE + 1), name, _color(value), font)
        left += draw.textlength(name, font) + 8
    return np.array(strip)


def _color(value: int) -> Any:
    return ImageColor.getrgb(COLORS[(value - 1) % len(COLORS)])
