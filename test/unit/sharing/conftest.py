"""A trained model small enough to be packed and spoilt in a moment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from nnunetlike.core.serialization import save_json, save_pickle
from nnunetlike.networks.model_files import save_model_file
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import plans_to_v1

TASK = "Task901_Tiny"
PLACE = f"3d_fullres/{TASK}/nnUNetTrainerV2__nnUNetPlansv2.1"
FINAL = "model_final_checkpoint.model"


@pytest.fixture
def make_model(tiny_plans: Callable[[int], Plans]) -> Callable[..., Path]:
    """Writes a model of one number, `weight`, below a folder of results; returns its folder."""

    def make(
        results: Path, *folds: str, place: str = PLACE, weight: float = 1.0, name: str = FINAL
    ) -> Path:
        folder = results / place
        plans = plans_to_v1(tiny_plans(3))
        info = {
            "init": (str(folder / "plans.pkl"), 0, str(folder), "d", True, 0, True, False, True),
            "name": place.rsplit("/")[-1].split("__")[0],
            "class": "<a trainer>",
            "plans": plans,
        }
        for fold in folds or ("fold_0",):
            content = {"epoch": 1, "state_dict": {"weight": torch.full((4,), weight)}}
            save_model_file(folder / fold / name, content, info)
        save_pickle(plans, folder / "plans.pkl")
        save_json({"for_which_classes": []}, folder / "postprocessing.json")
        return folder

    return make


@pytest.fixture
def results(home: Path) -> Path:
    """`RESULTS_FOLDER/nnUNet`, which does not exist yet."""
    return home / "results" / "nnUNet"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another `RESULTS_FOLDER/nnUNet`, set as long as the test runs."""
    monkeypatch.setenv("RESULTS_FOLDER", str(tmp_path / "elsewhere"))
    return tmp_path / "elsewhere" / "nnUNet"
