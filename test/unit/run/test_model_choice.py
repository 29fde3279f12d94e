from __future__ import annotations

import math
from pathlib import Path

import pytest

from nnunetlike.core.errors import UsageError
from nnunetlike.evaluation.summary import CaseScores, Summary
from nnunetlike.run.model_choice import (
    Candidate,
    Model,
    as_csv,
    as_table,
    common_folds,
    prediction_commands,
    ranked,
    validated_folds,
)

NAN = math.nan
MODELS = [Model(c, "Task001_X", "nnUNetTrainerV2", "nnUNetPlansv2.1") for c in ("2d", "3d_fullres")]


def candidate(
    name: str, dice: dict[str, list[float]], models: list[Model] | None = None
) -> Candidate:
    """A candidate whose cases have these Dice by label."""
    count = len(next(iter(dice.values())))
    cases = [
        CaseScores(f"c_{i}", f"c_{i}", {label: {"Dice": dice[label][i]} for label in dice})
        for i in range(count)
    ]
    return Candidate(name, tuple(models or MODELS[:1]), Summary(tuple(cases)), None, None)


def test_a_label_that_no_case_defines_does_not_spoil_the_mean() -> None:
    found = candidate("a", {"0": [1.0, 1.0], "1": [0.5, NAN], "2": [NAN, NAN], "99": [0.0, 0.0]})
    assert found.foreground == 0.5
    assert found.dice["1"] == 0.5 and math.isnan(found.dice["2"]) and "99" not in found.dice


def test_the_best_mean_comes_first_and_one_without_any_last() -> None:
    found = [candidate(n, {"1": [d]}) for n, d in (("a", 0.2), ("b", NAN), ("c", 0.9))]
    assert [one.name for one in ranked(found)] == ["c", "a", "b"]


def test_among_equals_the_single_model_comes_first() -> None:
    pair = candidate("pair", {"1": [0.5]}, MODELS)
    assert [one.name for one in ranked([pair, candidate("a", {"1": [0.5]})])] == ["a", "pair"]


def test_table_and_csv_say_what_is_not_defined() -> None:
    found = [candidate("a", {"1": [0.25], "2": [NAN]}), candidate("b", {"1": [1.0], "2": [0.5]})]
    assert as_csv(found).splitlines() == [
        "model,class1,class2,average,postprocessed", "a,0.2500,,0.2500,", "b,1.0000,0.5000,0.7500,",
    ]  # fmt: skip
    lines = as_table(found, found[1]).splitlines()
    assert lines[1].split() == ["a", "0.2500", "n/a", "0.2500", "n/a"]
    assert lines[2].split()[:2] == ["*", "b"]


@pytest.fixture
def folds(home: Path) -> Path:
    """Folds 0 and 2 of both models have weights; 2d has validated both, 3d_fullres fold 2."""
    for model in MODELS:
        for fold in (0, 2):
            folder = model.folder / f"fold_{fold}"
            (folder / "validation_raw").mkdir(parents=True)
            (folder / "model_final_checkpoint.model").touch()
            if model.configuration == "2d" or fold == 2:
                (folder / "validation_raw" / "summary.json").touch()
    return home


def test_folds_that_prediction_takes_anyway_are_not_named(folds: Path) -> None:
    best = candidate("2d", {"1": [1.0]})
    assert prediction_commands(best, (2, 0), "C") == [
        "nnUNet_predict -i FOLDER_WITH_TEST_CASES -o OUTPUT_FOLDER -tr nnUNetTrainerV2 -ctr C "
        "-m 2d -p nnUNetPlansv2.1 -t Task001_X"
    ]
    assert prediction_commands(best, (2,), "C")[0].endswith("-t Task001_X -f 2")


def test_a_cascade_is_predicted_with_the_trainers_of_both_stages(home: Path) -> None:
    model = Model("3d_cascade_fullres", "Task001_X", "Second", "P", first_stage="First")
    found = prediction_commands(candidate("c", {"1": [1.0]}, [model]), (0,), "C")
    assert "-tr First -ctr Second -m 3d_cascade_fullres -p P" in found[0]


def test_only_folds_that_every_model_has_validated_are_compared(folds: Path) -> None:
    found = {model: validated_folds(model, None) for model in MODELS}
    assert found[MODELS[0]] == (0, 2) and common_folds(found) == (2,)


def test_models_without_a_common_fold_are_refused() -> None:
    with pytest.raises(UsageError, match=r"2d: 0, 1; 3d_fullres: 2"):
        common_folds({MODELS[0]: (0, 1), MODELS[1]: (2,)})


def test_a_missing_validation_names_the_command_that_makes_it(folds: Path) -> None:
    with pytest.raises(
        UsageError,
        match=r"nnUNet_train 3d_fullres nnUNetTrainerV2 Task001_X 0 -val; "
        r"nnUNet_train 3d_fullres nnUNetTrainerV2 Task001_X 1$",
    ):
        validated_folds(MODELS[1], (0, 1, 2))
