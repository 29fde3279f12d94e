"""Trained models that are not where they are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetlike.core.errors import DataError
from nnunetlike.inference.model_bundle import _fold_folders, load_bundle


def test_a_task_trained_otherwise_says_as_what(tmp_path: Path) -> None:
    (tmp_path / "2d" / "Task501_Cells" / "nnUNetTrainerV2__nnUNetPlansv2.1").mkdir(parents=True)
    missing = tmp_path / "3d_fullres" / "Task501_Cells" / "nnUNetTrainerV2__nnUNetPlansv2.1"
    with pytest.raises(DataError, match="Task501_Cells was trained as 2d; choose with -m"):
        load_bundle(missing)


def trained(folder: Path, *folds: str) -> Path:
    for fold in folds:
        (folder / fold).mkdir()
        (folder / fold / "model_final_checkpoint.model").touch()
    return folder


def test_the_official_fold_predicts_where_no_numbered_one_is_trained(tmp_path: Path) -> None:
    trained(tmp_path, "all", "fold_official")
    assert [fold.name for fold in _fold_folders(tmp_path, None)] == ["fold_official"]
    assert [fold.name for fold in _fold_folders(tmp_path, ["official"])] == ["fold_official"]
    trained(tmp_path, "fold_0")
    assert [fold.name for fold in _fold_folders(tmp_path, None)] == ["fold_0"]
