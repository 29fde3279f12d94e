"""Splits that the user wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nnunetlike.data.splits import Split, save_splits
from nnunetlike.run.run_training import main

TASK = "Task901_Tiny"
OPTIONS = ("--epochs=1", "--iterations=1", "--num_workers=0", "--device=cpu", "--fp32")


def write_splits(home: Path, *splits: Split) -> None:
    save_splits(splits, home / "preprocessed" / TASK / "splits_final.pkl")


def train(fold: int) -> int:
    return main(["2d", "nnUNetTrainerV2", TASK, str(fold), *OPTIONS])


def test_a_split_with_unknown_cases_ends_with_3_and_their_names(
    tiny_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_splits(tiny_task, Split(("c_0", "patient_7"), ("c_1", "c_9")))
    assert train(0) == 3
    told = capsys.readouterr().err
    assert "lacks 2 case(s) of the split: c_9, patient_7. It holds 6: c_0, c_1, c_2, …" in told
    assert not (tiny_task / "results").exists()


def test_a_split_that_trains_on_what_it_validates_ends_with_3_and_the_cases(
    tiny_task: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_splits(
        tiny_task,
        Split(("c_0", "c_1"), ("c_2",)),
        Split(("c_3", "c_4", "c_5"), ("c_4", "c_5")),
    )
    assert train(0) == 3
    assert "fold 1: c_4, c_5. Take each out" in capsys.readouterr().err


@pytest.mark.slow
def test_three_folds_of_the_user_train_and_validate(tiny_task: Path) -> None:
    names = [f"c_{number}" for number in range(6)]
    write_splits(
        tiny_task,
        *(
            Split(tuple(c for c in names if c not in names[i : i + 2]), tuple(names[i : i + 2]))
            for i in (0, 2, 4)
        ),
    )
    assert train(2) == 0
    [summary] = (tiny_task / "results").rglob("fold_2/validation_raw/summary.json")
    cases = json.loads(summary.read_text())["results"]["all"]
    assert [Path(case["test"]).name for case in cases] == ["c_4.nii.gz", "c_5.nii.gz"]
