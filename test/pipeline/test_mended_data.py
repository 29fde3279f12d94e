"""A corrupt task, mended by nnUNet_verify_dataset, trains."""

from __future__ import annotations

from pathlib import Path

import pytest

from nnunetlike.run import convert_decathlon_task, plan_and_preprocess, run_training
from nnunetlike.run.verify_dataset import main as verify

TRAINING = (
    "--epochs=1", "--iterations=2", "--val_iterations=1", "--num_workers=0", "--device=cpu",
    "--batch_size=2", "--base_num_features=2", "--disable_validation_inference",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", ["corrupt", "corrupt_repaired_shapes"])
def test_the_mended_copy_of_a_corrupt_task_trains(shared: Path, home: Path, name: str) -> None:
    source = shared / "data" / f"Task04_Hippocampus_{name}"
    assert convert_decathlon_task.main(["-i", str(source), "-p", "1"]) == 0
    plan = ["-tf", "1", "-tl", "1", "-pl2d", "None", "--verify_dataset_integrity"]
    assert plan_and_preprocess.main(["-t", "4", *plan]) == 3
    out = home / "raw" / "nnUNet_raw_data" / "Task504_Mended"
    assert verify(["-t", "4", "-p", "1", "--fix", str(out)]) == 0
    assert plan_and_preprocess.main(["-t", "504", *plan]) == 0
    assert run_training.main(["3d_fullres", "nnUNetTrainerV2", "504", "all", *TRAINING]) == 0
    model = home / "results/nnUNet/3d_fullres/Task504_Mended/nnUNetTrainerV2__nnUNetPlansv2.1"
    assert (model / "all" / "model_final_checkpoint.model").is_file()
