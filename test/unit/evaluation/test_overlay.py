from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from nnunetlike.evaluation.overlay import Overlay, busiest_slice, draw_overlay, save_overlay


def overlay(shape: tuple[int, int, int] = (4, 6, 8), **changes: Any) -> Overlay:
    label = np.zeros(shape, np.uint8)
    label[-1, 1:4, 1:4] = 1
    label[-1, 4:6, 1:4] = 2
    settings: dict[str, Any] = {
        "image": np.random.default_rng(0).normal(size=shape).astype(np.float32),
        "label_maps": {"reference": label, "prediction": np.roll(label, 1, 2)},
        "spacing": (3.0, 1.0, 1.0),
        "names": {1: "anterior", 2: "posterior"},
        "title": "case_1",
    }
    return Overlay(**{**settings, **changes})


def test_the_busiest_slice_has_most_foreground() -> None:
    foreground = np.zeros((5, 3, 3), bool)
    foreground[1, 0] = True
    foreground[3] = True
    assert busiest_slice(foreground, 0) == 3
    assert busiest_slice(np.zeros((5, 3, 3), bool), 0) == 2


def test_a_volume_is_cut_three_ways_beside_each_label_map() -> None:
    assert len(draw_overlay(overlay()).axes) == 9


def test_a_photograph_is_shown_once() -> None:
    figure = draw_overlay(overlay((1, 6, 8)))
    assert len(figure.axes) == 3


def test_pixels_have_the_shape_of_the_spacing() -> None:
    aspects = [axes.get_aspect() for axes in draw_overlay(overlay()).axes]
    assert aspects[::3] == [1.0, 3.0, 3.0]


def test_the_legend_names_each_label_that_is_drawn() -> None:
    (legend,) = draw_overlay(overlay(names={1: "anterior", 5: "absent"})).legends
    assert [text.get_text() for text in legend.get_texts()] == ["1 anterior", "2"]


@pytest.mark.parametrize(
    "changes",
    [
        {"label_maps": {"reference": np.zeros((4, 6, 8), np.uint8)}},
        {"label_maps": {}},
        {"image": np.full((4, 6, 8), np.nan, np.float32)},
        {"image": np.ones((4, 6, 8), np.float32)},
        {"label_maps": {"reference": np.full((4, 6, 8), -1, np.int16)}},
    ],
    ids=["no foreground", "no label map", "all NaN", "constant", "outside the mask"],
)
def test_odd_cases_are_drawn_too(tmp_path: Path, changes: dict[str, Any]) -> None:
    save_overlay(overlay(**changes), tmp_path / "x.png", dots_per_inch=30)
    assert (tmp_path / "x.png").stat().st_size > 0


def test_labels_colour_the_picture(tmp_path: Path) -> None:
    save_overlay(overlay(), tmp_path / "x.png", dots_per_inch=40)
    pixels = imread(tmp_path / "x.png")[..., :3]
    assert np.ptp(pixels, axis=-1).max() > 0.3
