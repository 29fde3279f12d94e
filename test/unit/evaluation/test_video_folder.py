from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.video_folder import evaluate_video_folder, find_sidecars
from nnunetlike.run import evaluate_folder

CONTENT = {
    "modality": {"0": "US"},
    "labels": {"background": 0, "LV": 1, "ignore": 2},
    "video": {"time_axis": -1, "supervision": "edes"},
    "training": [],
    "test": [],
}


@pytest.fixture
def references(tmp_path: Path) -> Path:
    """labelsTs of a raw task with two videos, of which two frames of three are labelled."""
    task = tmp_path / "Task027_Beat"
    y, x = np.mgrid[:48, :48] - 23.7
    label = np.stack([(y / 18) ** 2 + (x / b) ** 2 < 1 for b in (12, 11, 8)]).astype(np.uint8)
    geometry = Geometry(shape=label.shape, spacing=(1.0, 0.5, 0.5))
    (task / "casesTs").mkdir(parents=True)
    (task / "dataset.json").write_text(json.dumps(CONTENT))
    for case in ("a", "b"):
        for folder in (task / "labelsTs", tmp_path / "predicted"):
            format_of(Path("x.nii.gz")).write_label(label, geometry, folder / f"{case}.nii.gz")
        facts = {"patient": case, "labelled_frames": [0, 1, 2], "ed": 0, "es": 2, "view": "4CH"}
        (task / "casesTs" / f"{case}.json").write_text(json.dumps(facts))
    return task / "labelsTs"


def test_the_facts_lie_beside_the_references_of_a_task_of_videos(references: Path) -> None:
    task = references.parent
    assert find_sidecars(references) == (task / "casesTs").resolve()
    assert find_sidecars(task / "labelsTr") is None
    assert find_sidecars(task / "casesTs") is None
    still = {key: value for key, value in CONTENT.items() if key != "video"}
    still["labels"] = {"background": 0, "LV": 1}
    (task / "dataset.json").write_text(json.dumps(still))
    assert find_sidecars(references) is None


def test_a_folder_is_scored_as_its_dataset_json_says(references: Path, tmp_path: Path) -> None:
    found = evaluate_video_folder(
        tmp_path / "predicted", references, [1], references.parent / "casesTs", processes=0,
        title="",
    )  # fmt: skip
    assert found.measurement.supervision == "edes"
    assert (found.measurement.ignore, found.measurement.unit) == (2, "mm")
    assert [frame.frame for frame in found.videos[0].frames["1"]] == [0, 2]


def test_without_a_dataset_json_the_ignored_label_is_not_guessed(
    references: Path, tmp_path: Path
) -> None:
    (references.parent / "dataset.json").unlink()
    with pytest.raises(DataError, match="label that is ignored"):
        evaluate_video_folder(
            tmp_path / "predicted", references, [1], references.parent / "casesTs", processes=0
        )


def test_a_missing_sidecar_is_named(references: Path, tmp_path: Path) -> None:
    (references.parent / "casesTs" / "b.json").unlink()
    with pytest.raises(DataError, match=r"b\.json does not exist"):
        evaluate_video_folder(
            tmp_path / "predicted", references, [1], references.parent / "casesTs", processes=0
        )


@pytest.mark.parametrize("told", [False, True])
def test_the_command_scores_videos_and_prints_phases(
    references: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], told: bool
) -> None:
    predicted = tmp_path / "predicted"
    words = ["-ref", str(references), "-pred", str(predicted), "-l", "1", "-num_processes", "0"]
    if told:  # references elsewhere, facts named
        moved = tmp_path / "elsewhere"
        references.rename(moved)
        sidecars = references.parent / "casesTs"
        words = ["-ref", str(moved), *words[2:], "--video", str(sidecars)]
    assert evaluate_folder.main(words) == 0
    said = capsys.readouterr().out
    assert "ED: Dice 1.0000, HD95 0.0000 mm, ASD 0.0000 mm (mean of the labels, 2 frames)" in said
    assert "4CH: Dice 1.0000" in said
    assert "ejection fraction, single_plane_discs_20: bias 0.000 points, SD 0.000" in said
    assert "2 cases evaluated" in said
    written = {path.name for path in predicted.iterdir()}
    assert {"summary.json", "bland_altman.png", "area_curves.png"} < written
