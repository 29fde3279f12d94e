"""What a video, its label map and its facts say differently. Axes: T, H, W."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nnunetlike.data.labels import LabelSet
from nnunetlike.data.video import VideoFacts
from nnunetlike.data.video_faults import strange_values, video_faults

LABELS = LabelSet({0: "background", 1: "LV", 2: "ignore"}, ignore=2)
FACTS = VideoFacts(patient="p", labelled_frames=(0, 3), ed=0, es=3)


def label() -> np.ndarray:
    """Four frames, of which the first and the last have a label."""
    found = np.full((4, 3, 3), 2, np.int16)
    found[[0, 3]] = 0
    found[[0, 3], 1, 1] = 1
    return found


def test_what_fits_has_no_fault() -> None:
    assert video_faults(FACTS, LABELS, 4, label()) == strange_values(label(), LABELS) == []


def test_a_value_that_nobody_declared_is_told_with_its_frames() -> None:
    wrong = label()
    wrong[[0, 3], 0, 0] = 255
    (fault,) = strange_values(wrong, LABELS)
    assert "255 in frames 0, 3" in fault and "1 LV" in fault


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ed": 4}, "ED is frame 4, but the video has the frames 0 to 3"),
        ({"es": -1}, "ES is frame -1"),
        ({"labelled_frames": (0, 3, 9)}, "labelled_frames names 9"),
        ({"labelled_frames": ()}, "labelled_frames is empty"),
        ({"labelled_frames": (0, 1, 3)}, "frame 1, where the label map holds nothing but 2"),
        ({"labelled_frames": (0,)}, r"lacks frame 3, and a frame without a label must hold 2"),
    ],
)
def test_facts_that_do_not_fit_are_told(changes: dict[str, object], message: str) -> None:
    faults = video_faults(replace(FACTS, **changes), LABELS, 4, label())  # type: ignore[arg-type]
    assert any(message in fault for fault in faults)


def test_a_single_frame_is_no_video() -> None:
    facts = VideoFacts(patient="p", labelled_frames=(0,))
    assert video_faults(facts, LABELS, 1, label()[:1]) == [
        "a video needs two frames or more, and this one has 1"
    ]


def test_without_an_ignored_label_every_frame_must_be_labelled() -> None:
    plain = LabelSet({0: "background", 1: "LV"})
    (fault,) = video_faults(FACTS, plain, 4, np.zeros((4, 3, 3), np.int16))
    assert "lacks frames 1, 2, and dataset.json declares no label 'ignore'" in fault


def test_all_faults_are_told_at_once_and_long_lists_are_cut() -> None:
    facts = VideoFacts(patient="p", labelled_frames=tuple(range(4, 24)), ed=30)
    faults = video_faults(facts, LABELS, 4, label())
    assert len(faults) == 3 and any("4, 5, 6, 7, 8 and 15 more" in fault for fault in faults)
