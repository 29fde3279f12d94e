from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.data.geometry import Geometry
from nnunetlike.data.imageio import format_of
from nnunetlike.evaluation.evaluator import evaluate_pairs
from nnunetlike.evaluation.summary import read_summary
from nnunetlike.inference.cross_validation import ensemble_validations
from nnunetlike.postprocessing.consolidate import consolidate, pool


def write(path: Path, seed: int) -> Path:
    label = np.random.default_rng(seed).integers(0, 3, (3, 5, 6)).astype(np.uint8)
    format_of(path).write_label(label, Geometry(shape=label.shape, spacing=(1.0, 1.0, 1.0)), path)
    return path


def validate(
    model: Path, fold: str, cases: list[int], classes: tuple[int, ...] = (0, 1, 2)
) -> None:
    """Write a fold's validation as training leaves it."""
    folder = model / fold / "validation_raw"
    pairs = [
        (write(folder / f"c_{i}.nii.gz", i + 50), write(model.parent / "gt" / f"c_{i}.nii.gz", i))
        for i in cases
    ]
    evaluate_pairs(pairs, classes, processes=1, title="").write(folder / "summary.json")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Folds 1, 3 and 10 of a cross-validation, two cases each, and a reference more."""
    for number, fold in enumerate((1, 3, 10)):
        validate(tmp_path / "model", f"fold_{fold}", [2 * number, 2 * number + 1])
    write(tmp_path / "gt" / "c_9.nii.gz", 9)
    return tmp_path / "model"


def test_any_folds_are_pooled_whatever_their_numbers(model: Path) -> None:
    found = consolidate(model, model.parent / "gt", processes=1)
    assert found.folds == ("fold_1", "fold_3", "fold_10")
    assert (found.cases, found.references) == (6, 7)
    assert len(read_summary(model / "cv_niftis_raw" / "summary.json").cases) == 6
    assert found.postprocessing["num_samples"] == 6


def test_a_subset_of_folds_is_pooled_and_leaves_nothing_of_a_larger_one(model: Path) -> None:
    pool(model, model.parent / "gt", processes=1)
    found = pool(model, model.parent / "gt", folds=[3, 10], processes=1)
    assert found.folds == ("fold_3", "fold_10") and found.cases == 4
    assert len(list((model / "cv_niftis_raw").glob("*.nii.gz"))) == 4


def test_fold_all_is_pooled_where_there_is_no_other(tmp_path: Path) -> None:
    validate(tmp_path / "model", "all", [0, 1, 2])
    assert consolidate(tmp_path / "model", tmp_path / "gt", processes=1).folds == ("all",)


def test_classes_are_those_of_the_folds_that_are_pooled(tmp_path: Path) -> None:
    validate(tmp_path / "model", "fold_0", [0], classes=(0, 1))
    validate(tmp_path / "model", "fold_2", [1], classes=(0, 1, 2))
    assert pool(tmp_path / "model", tmp_path / "gt", folds=[2], processes=1).labels == (0, 1, 2)


def test_a_fold_whose_validation_did_not_end_is_refused(model: Path) -> None:
    (model / "fold_3" / "validation_raw" / "summary.json").unlink()
    with pytest.raises(UsageError, match=r"fold_3 lacks a complete validation"):
        pool(model, model.parent / "gt", folds=[1, 3], processes=1)
    assert pool(model, model.parent / "gt", processes=1).folds == ("fold_1", "fold_10")


def test_a_prediction_that_the_summary_scores_must_be_there(model: Path) -> None:
    (model / "fold_3" / "validation_raw" / "c_2.nii.gz").unlink()
    with pytest.raises(UsageError, match=r"lacks c_2\.nii\.gz"):
        pool(model, model.parent / "gt", processes=1)


def test_a_case_of_two_folds_is_refused_by_name(model: Path) -> None:
    validate(model, "fold_4", [5])
    with pytest.raises(UsageError, match=r"c_5\.nii\.gz was predicted by fold_4 and by fold_10"):
        pool(model, model.parent / "gt", processes=1)


def test_a_prediction_without_reference_is_named(model: Path) -> None:
    (model.parent / "gt" / "c_3.nii.gz").unlink()
    with pytest.raises(DataError, match=r"c_3\.nii\.gz"):
        pool(model, model.parent / "gt", processes=1)


def test_models_that_validated_other_cases_make_no_ensemble(model: Path) -> None:
    other = model.parent / "other"
    for number, fold in enumerate((1, 3, 10)):
        validate(other, f"fold_{fold}", [2 * number])
    with pytest.raises(UsageError, match=r"other lacks c_1, c_3, c_5"):
        ensemble_validations(
            [model, other], [1, 3, 10], model.parent / "gt", model.parent / "out", labels=[1, 2],
            processes=1,
        )  # fmt: skip
