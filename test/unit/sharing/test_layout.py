from __future__ import annotations

import pytest

from nnunetlike.sharing.layout import Place, folds_of, place_of, predict_command

MODEL = "3d_fullres/Task004_Hippocampus/nnUNetTrainerV2__nnUNetPlansv2.1"
PLACE = Place("3d_fullres", "Task004_Hippocampus", "nnUNetTrainerV2__nnUNetPlansv2.1")


@pytest.mark.parametrize(
    "name",
    [
        f"{MODEL}/plans.pkl",
        f"{MODEL}/fold_0/model_final_checkpoint.model",
        f"{MODEL}/all/model_final_checkpoint.model.pkl",
        f"{MODEL}/fold_official/debug.json",
        f"{MODEL}/fold_0/validation_raw/summary.json",
    ],
)
def test_files_of_a_model_belong_to_it(name: str) -> None:
    assert place_of(name) == PLACE


@pytest.mark.parametrize(
    "name",
    [
        "plans.pkl",
        MODEL,
        f"{MODEL}/run.sh",
        f"{MODEL}/model.PKL.exe",
        f"{MODEL}/a/b/c/d/e.json",
        f"RESULTS/{MODEL}/plans.pkl",
        "3d_other/Task004_X/T__P/plans.pkl",
        "3d_fullres/Hippocampus/T__P/plans.pkl",
        "3d_fullres/Task004_X/nnUNetTrainerV2/plans.pkl",
        "ensembles/Task004_X/ensemble_a--b/plans.pkl",
        "ensembles/Task004_X/ensemble_a--b/fold_0/postprocessing.json",
    ],
)
def test_other_files_belong_nowhere(name: str) -> None:
    assert place_of(name) is None


def test_an_ensemble_is_its_postprocessing() -> None:
    place = place_of("ensembles/Task004_X/ensemble_a--b/postprocessing.json")
    assert place is not None and place.is_ensemble


def test_folds_are_those_with_a_checkpoint() -> None:
    names = [
        f"{MODEL}/fold_3/a.model", f"{MODEL}/all/a.model", f"{MODEL}/fold_1/debug.json",
        f"{MODEL}/fold_0/deeper/a.model", "2d/Task004_Hippocampus/T__P/fold_2/a.model",
    ]  # fmt: skip
    assert folds_of(PLACE, names) == ("all", "fold_3")


def test_the_command_names_what_is_not_the_default() -> None:
    usual = predict_command(PLACE, [f"{MODEL}/fold_0/model_final_checkpoint.model"])
    assert usual.endswith("-m 3d_fullres -tr nnUNetTrainerV2 -p nnUNetPlansv2.1")
    other = predict_command(PLACE, [f"{MODEL}/all/model_best.model"])
    assert other.endswith("-p nnUNetPlansv2.1 -f all -chk model_best")
