"""Results folders as early versions of v1 and its trainers for several GPUs left them."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from nnunetlike.run.predict import main

MODELS = {
    "2d": ("2d", "nnUNetTrainerV2", "nnUNetPlans_tiny", "2d_notta"),
    "3d": ("3d_fullres", "nnUNetTrainerV2", "nnUNetPlans_tiny", "3d_fullres_notta"),
    "unet++": ("3d_fullres", "nnUNetPlusPlusTrainerV2", "nnUNetPlans_upp", "unetplusplus_notta"),
}
LATER_KEYS = ("conv_per_stage", "transpose_forward", "transpose_backward", "preprocessor_name")
LATER_STAGE_KEYS = ("pool_op_kernel_sizes", "conv_kernel_sizes")


def as_an_early_version_left_it(path: Path, *, several_gpus: bool) -> None:
    """Write a checkpoint of v1 again, without what early versions did not write."""
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    if several_gpus:
        content["state_dict"] = {f"module.{k}": v for k, v in content["state_dict"].items()}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    beside = path.with_name(path.name + ".pkl")
    info = pickle.loads(beside.read_bytes())
    for key in LATER_KEYS:
        info["plans"].pop(key, None)
    for stage in info["plans"]["plans_per_stage"].values():
        for key in LATER_STAGE_KEYS:
            del stage[key]
    if several_gpus:  # local_rank is the third argument, distribute_batch_size the last but one
        init = info["init"]
        info["init"] = (*init[:2], 0, *init[2:8], True, *init[8:])
        info["name"] += "_DDP"
    beside.write_bytes(pickle.dumps(info, protocol=2))


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("several_gpus", [False, True], ids=["one_gpu", "ddp"])
def test_early_models_predict_in_place_what_v1_predicted(
    golden: Path, home: Path, kind: str, several_gpus: bool
) -> None:
    configuration, trainer, plans, setting = MODELS[kind]
    home_of = Path("nnUNet") / configuration / "Task071_CTISO"
    folder = home / "results" / home_of / f"{trainer}{'_DDP' * several_gpus}__{plans}"
    shutil.copytree(
        golden / "model/RESULTS_FOLDER" / home_of / f"{trainer}__{plans}", folder,
        ignore=shutil.ignore_patterns("plans.pkl", "debug.json", "*.txt"),
    )  # fmt: skip
    for path in folder.glob("fold_*/*.model"):
        as_an_early_version_left_it(path, several_gpus=several_gpus)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    status = main(
        ["-i", str(golden / "model" / "input"), "-o", str(home / "out"), "-t", "71",
         "-m", configuration, "-tr", folder.name.split("__")[0], "-p", plans, "--disable_tta",
         "--device", "cpu", "--num_threads_preprocessing", "0", "--num_threads_nifti_save", "0"]
    )  # fmt: skip
    assert status == 0
    expected = sitk.ReadImage(str(golden / "model" / "expected" / f"{setting}__ct_test0.nii.gz"))
    found = sitk.ReadImage(str(home / "out" / "ct_test0.nii.gz"))
    same = sitk.GetArrayFromImage(found) == sitk.GetArrayFromImage(expected)
    assert np.mean(same) > 0.9999
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
