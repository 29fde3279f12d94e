"""Predicted videos to watch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageColor

from nnunetlike.data.video import VideoFacts
from nnunetlike.evaluation.overlay import COLORS
from nnunetlike.inference.video_overlay import (
    LINE,
    LabelledVideo,
    overlay_frames,
    playing_rate,
    write_overlay,
)

T, H, W = 4, 32, 40
FACTS = VideoFacts(patient="p", labelled_frames=(), ed=1, es=3)


def video(channels: int = 1, spacing: tuple[float, float] = (1.0, 1.0)) -> LabelledVideo:
    """A square of label 1 in grey noise; the last frame has no label."""
    image = np.random.default_rng(0).normal(size=(channels, T, H, W)).astype(np.float32)
    label = np.zeros((T, H, W), np.uint8)
    label[:3, 8:24, 10:30] = 1
    return LabelledVideo(
        image=image, label=label, spacing=spacing, facts=FACTS, names={1: "LV"}
    )  # fmt: skip


def test_labels_are_outlined_in_colour_and_grey_inside() -> None:
    frame = next(overlay_frames(video()))
    assert frame.shape == (256 + 2 * LINE, 320, 3)
    colour = ImageColor.getrgb(COLORS[0])
    assert tuple(frame[8 * 8, 20 * 8]) == colour  # the border of the square
    assert np.ptp(frame[16 * 8, 20 * 8]) == 0  # within it
    assert np.ptp(frame[2 * 8, 2 * 8]) == 0  # outside


def test_a_frame_without_label_has_no_outline() -> None:
    last = list(overlay_frames(video()))[3][:256]
    assert (last == last[..., :1]).all()


def test_the_caption_differs_where_a_phase_is_marked() -> None:
    marked = list(overlay_frames(video()))
    plain = list(overlay_frames(LabelledVideo(**{**vars(video()), "facts": VideoFacts(
        patient="p", labelled_frames=())})))  # fmt: skip
    same = [np.array_equal(a, b) for a, b in zip(marked, plain, strict=True)]
    assert same == [True, False, True, False]


def test_pixels_on_the_screen_are_square() -> None:
    frame = next(overlay_frames(video(spacing=(0.5, 0.25))))
    assert frame.shape[:2] == (410 + 2 * LINE, 256)  # 64 x 40 half pixels, and even


def test_colour_images_keep_their_colours() -> None:
    frame = next(overlay_frames(video(channels=3)))
    assert np.ptp(frame[:60], axis=-1).max() > 0


@pytest.mark.parametrize(
    ("fps", "frames", "rate"),
    [(50.0, 200, 50.0), (None, 200, 25.0), (48.5, 19, 9.5), (None, 1, 0.5)],
)
def test_short_videos_are_slowed_down_to_two_seconds(
    fps: float | None, frames: int, rate: float
) -> None:
    assert playing_rate(VideoFacts(patient="p", labelled_frames=(), fps=fps), frames) == rate


def test_an_empty_image_is_drawn_black(tmp_path: Path) -> None:
    shown = video()
    shown.image[:] = 0
    write_overlay(shown, tmp_path / "x.gif")
    with Image.open(tmp_path / "x.gif") as picture:
        assert picture.n_frames == T  # type: ignore[attr-defined]
    assert [path.name for path in tmp_path.iterdir()] == ["x.gif"]
