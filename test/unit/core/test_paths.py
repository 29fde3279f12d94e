from __future__ import annotations

from pathlib import Path

import pytest

from nnunetlike.core import paths
from nnunetlike.core.errors import DataError, UsageError


def test_a_missing_variable_is_named_with_the_command_that_sets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    with pytest.raises(UsageError, match="export nnUNet_preprocessed="):
        paths.preprocessed()


def test_quotes_and_tilde_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("nnUNet_preprocessed", "'~/data'")
    assert paths.preprocessed() == Path.home() / "data"


def test_a_number_finds_the_task_in_any_folder(home: Path) -> None:
    (home / "preprocessed" / "Task004_Hippocampus").mkdir(parents=True)
    (home / "raw" / "nnUNet_raw_data" / "Task0045_Other").mkdir(parents=True)
    assert paths.task_name("4") == paths.task_name(4) == "Task004_Hippocampus"
    assert paths.task_name("Task999_AsItIs") == "Task999_AsItIs"


def test_an_unknown_number_says_where_it_was_searched(home: Path) -> None:
    with pytest.raises(UsageError, match=r"no task has the number 7.*nnUNet_raw_data"):
        paths.task_name("7")


def test_two_tasks_of_one_number_are_both_named(home: Path) -> None:
    for name in ("Task004_A", "Task004_B"):
        (home / "preprocessed" / name).mkdir(parents=True)
    with pytest.raises(UsageError, match="Task004_A, Task004_B"):
        paths.task_name("004")


def test_nonsense_is_neither_name_nor_number(home: Path) -> None:
    with pytest.raises(UsageError, match="neither a task name"):
        paths.task_name("liver")


def test_folds() -> None:
    assert paths.parse_fold("3") == 3 and paths.parse_fold("all") == "all"
    assert paths.fold_name(3) == "fold_3" and paths.fold_name("all") == "all"
    assert paths.fold_name(paths.parse_fold("official")) == "fold_official"
    with pytest.raises(UsageError, match="'first'"):
        paths.parse_fold("first")


def test_missing_plans_name_the_command_that_makes_them(home: Path) -> None:
    with pytest.raises(DataError, match="nnUNet_plan_and_preprocess -t 4"):
        paths.plans_file("Task004_Hippocampus", "3d_fullres")


def test_the_folder_names_of_v2_are_tasks_too(home: Path) -> None:
    (home / "raw" / "nnUNet_raw_data" / "Dataset007_Pancreas").mkdir(parents=True)
    assert paths.task_name("Dataset007_Pancreas") == "Dataset007_Pancreas"
    assert paths.task_name("7") == paths.task_name(7) == "Dataset007_Pancreas"
    assert paths.task_number("Dataset007_Pancreas") == paths.task_number("Task7_X") == 7
    assert paths.task_number("Pancreas") is None
    with pytest.raises(DataError, match="nnUNet_plan_and_preprocess -t 7"):
        paths.plans_file("Dataset007_Pancreas", "2d")


def test_3d_of_a_task_planned_for_2d_says_so(home: Path) -> None:
    folder = home / "preprocessed" / "Task501_Cells"
    folder.mkdir(parents=True)
    (folder / "nnUNetPlansv2.1_plans_2D.pkl").touch()
    with pytest.raises(
        UsageError, match="Task501_Cells is planned for 2d only, so 3d_fullres does not exist"
    ):
        paths.plans_file("Task501_Cells", "3d_fullres")
