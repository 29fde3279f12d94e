from __future__ import annotations

import ast
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.evaluator import evaluate_folder, score_case
from nnunetlike.postprocessing.connected_components import keep_largest
from nnunetlike.postprocessing.determine import determine_postprocessing, settings_of
from nnunetlike.postprocessing.min_size import best_limit, removable

SPACING = (2.0, 1.0, 0.5)


def dice(prediction: Any, reference: Any) -> float:
    return score_case(prediction, reference, SPACING, {"1": (1,)})["1"]["Dice"]


def blobs(seed: int, shape: tuple[int, int, int] = (6, 9, 10)) -> Any:
    return (np.random.default_rng(seed).random(shape) > 0.7).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_dice_under_a_limit_is_that_of_the_label_map_without_small_components(seed: int) -> None:
    prediction, reference = blobs(seed), blobs(seed + 100)
    found = removable(prediction == 1, reference == 1, 1.0)
    for limit in (0.0, 1.5, 2.5, 4.0, 1e30):
        left = keep_largest(prediction, [1], 1.0, {1: limit}).label
        assert found.dice(np.array([limit]))[0] == dice(left, reference)


def test_an_empty_case_defines_no_dice_and_an_only_component_stays() -> None:
    empty = np.zeros((3, 4, 5), bool)
    assert np.isnan(removable(empty, empty, 1.0).dice(np.array([5.0]))).all()
    one = empty.copy()
    one[0, 0, 0] = True
    assert removable(one, empty, 1.0).dice(np.array([1e30])).tolist() == [0.0]


@pytest.mark.parametrize("seed", range(3))
def test_the_best_limit_is_that_of_trying_all(seed: int) -> None:
    pairs = [(blobs(10 * seed + i), blobs(10 * seed + i + 5)) for i in range(3)]
    cases = [removable(p == 1, r == 1, 1.0) for p, r in pairs]
    found = best_limit(cases)
    assert found is not None
    tried = {
        limit: np.mean([dice(keep_largest(p, [1], 1.0, {1: limit}).label, r) for p, r in pairs])
        for limit in np.arange(0.5, 30.0, 0.5)
        if limit > min(case.sizes.min() for case in cases)
        and limit < max(case.sizes.max() for case in cases)
    }
    assert found[1] == pytest.approx(max(tried.values()), abs=1e-12)


def test_no_two_sizes_leave_no_limit_between() -> None:
    one = np.zeros((3, 4, 5), bool)
    one[0] = True
    assert best_limit([removable(one, one, 1.0)]) is None


@pytest.fixture
def predictions(tmp_path: Path) -> Path:
    """Two wanted blobs of label 1 (27 and 8 voxels) and false ones of 1 voxel; label 2 is right."""
    for case in range(2):
        wanted = np.zeros((6, 12, 14), np.uint8)
        wanted[1:4, 1:4, 1:4] = 1
        wanted[1:3, 7:9, 1:3] = 1
        wanted[1:3, 6:9, 9:12] = 2
        predicted = wanted.copy()
        predicted[5, 0, 0] = predicted[5, 11, 0] = predicted[0, 11, 13 - case] = 1
        predicted[4:6, 3:5, 12] = 1  # 4 voxels, false too
        for folder, voxels in (("validation_raw", predicted), ("gt", wanted)):
            path = tmp_path / folder / f"c_{case}.nii.gz"
            geometry = Geometry(shape=voxels.shape, spacing=SPACING)
            format_of(path).write_label(voxels, geometry, path)
    raw = tmp_path / "validation_raw"
    evaluate_folder(raw, tmp_path / "gt", [1, 2], processes=1).write(raw / "summary.json")
    return tmp_path


def test_a_least_size_is_found_and_applied_where_the_largest_alone_is_worse(
    predictions: Path,
) -> None:
    found = determine_postprocessing(predictions, predictions / "gt", min_size=True, processes=1)
    assert found["for_which_classes"] == [1]
    assert 4 < settings_of(found)[1][1] < 8  # type: ignore[index]  # voxels of 1 mm³
    assert found["dc_per_class_pp_min_size"] == {"1": 1.0, "2": 1.0}
    folder = predictions / "validation_raw_postprocessed"
    scores = evaluate_folder(folder, predictions / "gt", [1, 2], processes=1).mean
    assert scores["1"]["Dice"] == scores["2"]["Dice"] == 1.0


def test_v1s_reader_takes_the_least_sizes(predictions: Path) -> None:
    """It reads text as a literal and looks up every structure that it treats."""
    determine_postprocessing(predictions, predictions / "gt", min_size=True, processes=1)
    content = json.loads((predictions / "postprocessing.json").read_text())
    sizes = ast.literal_eval(content["min_valid_object_sizes"])
    structures = [tuple(s) if isinstance(s, list) else s for s in content["for_which_classes"]]
    assert structures and all(math.isfinite(sizes[structure]) for structure in structures)


def test_without_the_option_the_file_is_v1s(predictions: Path) -> None:
    content = determine_postprocessing(predictions, predictions / "gt", processes=1)
    assert content["min_valid_object_sizes"] == "None"
    assert "dc_per_class_pp_min_size" not in content


def test_structures_without_a_least_size_get_one_that_nothing_reaches(tmp_path: Path) -> None:
    """Joint foreground first, which joins two blobs of label 1 that only label 2 connects."""
    for case in range(2):
        wanted = np.zeros((3, 12, 14), np.uint8)
        wanted[1, 2:10, 2:10] = 2
        wanted[0, 2:5, 2:5] = wanted[0, 7:9, 7:9] = 1
        predicted = wanted.copy()
        predicted[0, 11, 13] = predicted[2, 11, case] = 1  # apart from the foreground
        predicted[0, 2, 9] = predicted[2, 5, 5] = predicted[2, 7, 7] = 1  # false, but joined to it
        predicted[2, 9, 9] = predicted[2, 9, 8] = 1
        for folder, voxels in (("validation_raw", predicted), ("gt", wanted)):
            path = tmp_path / folder / f"c_{case}.nii.gz"
            geometry = Geometry(shape=voxels.shape, spacing=SPACING)
            format_of(path).write_label(voxels, geometry, path)
    raw = tmp_path / "validation_raw"
    evaluate_folder(raw, tmp_path / "gt", [1, 2], processes=1).write(raw / "summary.json")
    content = determine_postprocessing(tmp_path, tmp_path / "gt", min_size=True, processes=1)
    structures, sizes = settings_of(content)
    assert structures == [(1, 2), 1] and sizes is not None
    assert sizes[1, 2] == 1e30 and 2 < sizes[1] < 4
    assert content["dc_per_class_pp_min_size"]["1"] == 1.0
