"""dataset.json of videos: its labels, its cases and what is known of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.dataset import DatasetSpec

CONTENT: dict[str, Any] = {
    "modality": {"0": "US"},
    "labels": {"0": "background", "1": "LV", "2": "ignore"},
    "video": {"group_regex": "^(p\\d+)_"},
    "training": [{"image": "./imagesTr/p1_2CH.nii.gz", "label": "./labelsTr/p1_2CH.nii.gz"}],
}
FACTS = {"patient": "someone", "labelled_frames": [0, 3], "ed": 0, "es": 3}


@pytest.fixture
def task(tmp_path: Path) -> Callable[..., DatasetSpec]:
    def make(facts: dict[str, Any] | None = None, **changes: Any) -> DatasetSpec:
        (tmp_path / "dataset.json").write_text(json.dumps(CONTENT | changes))
        (tmp_path / "casesTr").mkdir()
        if facts is not None:
            (tmp_path / "casesTr" / "p1_2CH.json").write_text(json.dumps(facts))
        return DatasetSpec.load(tmp_path / "dataset.json")

    return make


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "1": "LV", "2": "MYO", "3": "ignore"},
        {"background": 0, "LV": 1, "MYO": 2, "ignore": 3},
        {"ignore": 3, "MYO": 2, "LV": 1, "background": 0},
    ],
)
def test_the_ignored_label_is_declared_but_no_foreground(
    task: Callable[..., DatasetSpec], labels: dict[str, Any]
) -> None:
    found = task(labels=labels).labels
    assert sorted(found.foreground) == [1, 2] and found.ignore == 3
    assert found.names[3] == "ignore"


def test_a_task_of_videos_may_go_without_an_ignored_label(task: Callable[..., DatasetSpec]) -> None:
    found = task(labels={"background": 0, "LV": 1}).labels
    assert found.ignore is None and found.foreground == [1]


@pytest.mark.parametrize(
    "labels",
    [
        {"0": "background", "2": "LV", "3": "ignore"},
        {"0": "background", "1": "ignore", "2": "LV"},
        {"0": "background", "1": "LV", "255": "ignore"},
        {"background": 0, "LV": 1, "ignore": 1},
        {"background": 0, "LV": 1, "ignore": 255},
        {"background": 0, "LV": 1, "ignore": [2]},
    ],
)
def test_labels_of_videos_have_no_gap_and_end_with_the_ignored_one(
    task: Callable[..., DatasetSpec], labels: dict[str, Any]
) -> None:
    with pytest.raises(DataError, match="ignore"):
        task(labels=labels)


def test_without_videos_an_ignored_label_stays_refused(task: Callable[..., DatasetSpec]) -> None:
    with pytest.raises(DataError, match="not supported yet"):
        task(labels={"background": 0, "LV": 1, "ignore": 2}, video=None)


def test_a_case_knows_its_facts_and_the_patient_that_its_name_tells(
    task: Callable[..., DatasetSpec], tmp_path: Path
) -> None:
    case = task(FACTS).training_case(tmp_path, "p1_2CH")
    assert case.video is not None and case.video.patient == "p1"
    assert case.video.labelled_frames == (0, 3) and case.labels is not None


def test_facts_are_brought_into_order(task: Callable[..., DatasetSpec], tmp_path: Path) -> None:
    told = {"patient": 7, "labelled_frames": [3, 0, 3.0], "ef": float("nan"), "fps": 50}
    facts = task(told, video={}).training_case(tmp_path, "p1_2CH").video
    assert facts is not None and facts.patient == "7" and facts.labelled_frames == (0, 3)
    assert facts.ef is None and facts.fps == 50.0


def test_without_an_expression_the_facts_name_the_patient(
    task: Callable[..., DatasetSpec], tmp_path: Path
) -> None:
    case = task(FACTS, video={}).training_case(tmp_path, "p1_2CH")
    assert case.video is not None and case.video.patient == "someone"


@pytest.mark.parametrize(
    ("facts", "video", "message"),
    [
        (None, {}, "p1_2CH.json"),
        ({"patient": "p1"}, {}, "labelled_frames"),
        ([1, 2], {}, "does not describe a video"),
        (FACTS | {"patient": ""}, {}, "patient '' is no name"),
        (FACTS | {"ed": "3"}, {}, "'3' is no number of a frame"),
        (FACTS | {"labelled_frames": [0, 1.5]}, {}, "1.5 is no number of a frame"),
        (FACTS | {"labelled_frames": 3}, {}, "does not describe a video"),
        (FACTS | {"spacing_known": "no"}, {}, "spacing_known is 'no'"),
        (FACTS | {"fps": "fast"}, {}, "does not describe a video"),
        (FACTS, {"group_regex": "("}, "no regular expression"),
        (FACTS, {"group_regex": "^q"}, "p1_2CH: .* finds no patient"),
        (FACTS | {"ed": 1, "es": 2}, {"supervision": "edes"}, r"neither ED \(1\) nor ES \(2\)"),
    ],
)
def test_facts_that_cannot_be_used_are_refused(
    task: Callable[..., DatasetSpec], tmp_path: Path, facts: Any, video: Any, message: str
) -> None:
    spec = task(facts, video=video)
    with pytest.raises(DataError, match=message):
        spec.training_case(tmp_path, "p1_2CH")
