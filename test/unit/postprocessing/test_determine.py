from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.evaluator import evaluate_folder
from nnunetlike.postprocessing.consolidate import consolidate
from nnunetlike.postprocessing.determine import (
    apply_postprocessing,
    determine_postprocessing,
    load_postprocessing,
)

SPACING = (2.0, 1.0, 1.0)


def write(path: Path, label: Any) -> None:
    geometry = Geometry(shape=label.shape, spacing=SPACING, origin=(1.0, 2.0, 3.0))
    format_of(path).write_label(label, geometry, path)


def read(path: Path) -> Any:
    return format_of(path).read_label(path)[0]


def blob(*, island: bool) -> Any:
    label = np.zeros((3, 8, 8), np.uint8)
    label[:, 1:5, 1:5] = 1
    if island:
        label[0, 7, 7] = 1
    return label


def fold(model: Path, number: int | str, cases: list[str], *, island: bool = True) -> None:
    name = number if number == "all" else f"fold_{number}"
    for case in cases:
        write(model / str(name) / "validation_raw" / f"{case}.nii.gz", blob(island=island))
        write(model / "gt_niftis" / f"{case}.nii.gz", blob(island=False))
        write(model / "some" / f"{case}.nii.gz", blob(island=False))
    raw = model / str(name) / "validation_raw"
    evaluate_folder(raw, model / "some", [0, 1], processes=1).write(raw / "summary.json")
    for case in cases:
        (model / "some" / f"{case}.nii.gz").unlink()


def test_islands_that_hurt_are_removed_and_geometry_stays(tmp_path: Path) -> None:
    fold(tmp_path, 0, ["a", "b"])
    found = determine_postprocessing(tmp_path / "fold_0", tmp_path / "gt_niftis", processes=1)
    assert found["for_which_classes"] == [[1]] and found["num_samples"] == 2
    path = tmp_path / "fold_0" / "validation_raw_postprocessed" / "a.nii.gz"
    label, geometry = format_of(path).read_label(path)
    assert np.array_equal(label, blob(island=False))
    assert geometry.spacing == SPACING and geometry.origin == (1.0, 2.0, 3.0)


def test_summary_of_the_final_folder_names_the_final_files(tmp_path: Path) -> None:
    fold(tmp_path, 0, ["a"])
    determine_postprocessing(tmp_path / "fold_0", tmp_path / "gt_niftis", processes=1)
    final = tmp_path / "fold_0" / "validation_raw_postprocessed"
    summary = json.loads((final / "summary.json").read_text())
    assert summary["results"]["all"][0]["test"] == str(final / "a.nii.gz")
    assert summary["results"]["mean"]["1"]["Dice"] == 1.0


def test_a_label_that_never_occurs_is_not_adopted(tmp_path: Path) -> None:
    write(tmp_path / "raw" / "a.nii.gz", blob(island=True))
    write(tmp_path / "gt" / "a.nii.gz", blob(island=True))
    found = determine_postprocessing(
        tmp_path, tmp_path / "gt", raw="raw", classes=[1, 2], processes=1
    )
    assert found["for_which_classes"] == []


def test_missing_references_and_predictions_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="validate the model first"):
        determine_postprocessing(tmp_path, tmp_path, processes=1)
    write(tmp_path / "raw" / "a.nii.gz", blob(island=True))
    with pytest.raises(DataError, match=r"lacks the references a\.nii\.gz"):
        determine_postprocessing(tmp_path, tmp_path / "gt", raw="raw", classes=[1], processes=1)


def test_a_failure_leaves_no_half_written_folder(tmp_path: Path) -> None:
    fold(tmp_path, 0, ["a"])
    (tmp_path / "fold_0" / "validation_raw" / "b.nii.gz").write_bytes(b"not an image")
    write(tmp_path / "gt_niftis" / "b.nii.gz", blob(island=False))
    with pytest.raises(DataError, match="b"):
        determine_postprocessing(tmp_path / "fold_0", tmp_path / "gt_niftis", processes=1)
    assert [entry.name for entry in (tmp_path / "fold_0").iterdir()] == ["validation_raw"]


@pytest.mark.parametrize(
    ("sizes", "kept"), [("None", False), (None, False), ("{1: 2.0}", True), ("{1: 2.5}", False)]
)
def test_sizes_are_read_as_v1_stores_them(tmp_path: Path, sizes: str | None, kept: bool) -> None:
    write(tmp_path / "a.nii.gz", blob(island=True))
    content = {"for_which_classes": [1], "min_valid_object_sizes": sizes}
    apply_postprocessing(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", content)
    assert np.array_equal(read(tmp_path / "b.nii.gz"), blob(island=kept))


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        {"for_which_classes": "x"},
        {"for_which_classes": [1], "min_valid_object_sizes": "f()"},
    ],
)
def test_a_file_that_is_no_postprocessing_is_refused(tmp_path: Path, content: Any) -> None:
    (tmp_path / "postprocessing.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="not a postprocessing"):
        load_postprocessing(tmp_path / "postprocessing.json")


def test_any_subset_of_folds_is_pooled(tmp_path: Path) -> None:
    fold(tmp_path, 3, ["d", "a"])
    fold(tmp_path, 10, ["b"])
    write(tmp_path / "gt_niftis" / "z.nii.gz", blob(island=False))
    (tmp_path / "fold_1").mkdir()
    found = consolidate(tmp_path, tmp_path / "gt_niftis", processes=1)
    assert found.folds == ("fold_3", "fold_10") and (found.cases, found.references) == (3, 4)
    pooled = sorted(entry.name for entry in (tmp_path / "cv_niftis_raw").iterdir())
    assert pooled == ["a.nii.gz", "b.nii.gz", "d.nii.gz", "summary.json"]
    assert found.postprocessing["for_which_classes"] == [[1]]
    assert json.loads((tmp_path / "postprocessing.json").read_text()) == found.postprocessing
    assert (tmp_path / "cv_niftis_postprocessed" / "summary.json").is_file()


def test_pooling_again_replaces_what_was_there(tmp_path: Path) -> None:
    fold(tmp_path, 0, ["a"])
    fold(tmp_path, 1, ["b"])
    consolidate(tmp_path, tmp_path / "gt_niftis", processes=1)
    consolidate(tmp_path, tmp_path / "gt_niftis", folds=[1], processes=1)
    pooled = sorted(entry.name for entry in (tmp_path / "cv_niftis_raw").iterdir())
    assert pooled == ["b.nii.gz", "summary.json"]


def test_fold_all_is_taken_only_where_no_other_is(tmp_path: Path) -> None:
    fold(tmp_path, "all", ["a"])
    assert consolidate(tmp_path, tmp_path / "gt_niftis", processes=1).folds == ("all",)
    fold(tmp_path, "official", ["a"])
    assert consolidate(tmp_path, tmp_path / "gt_niftis", processes=1).folds == ("fold_official",)
    fold(tmp_path, 0, ["b"])
    assert consolidate(tmp_path, tmp_path / "gt_niftis", processes=1).folds == ("fold_0",)


def test_a_case_predicted_twice_is_refused(tmp_path: Path) -> None:
    fold(tmp_path, 0, ["a"])
    fold(tmp_path, 5, ["a"])
    with pytest.raises(UsageError, match="fold_0 and by fold_5"):
        consolidate(tmp_path, tmp_path / "gt_niftis", processes=1)


@pytest.mark.parametrize("folds", [None, [0]])
def test_folds_without_predictions_are_named(tmp_path: Path, folds: list[int] | None) -> None:
    (tmp_path / "fold_0").mkdir()
    with pytest.raises(UsageError, match="validation_raw"):
        consolidate(tmp_path, tmp_path, folds=folds, processes=1)
