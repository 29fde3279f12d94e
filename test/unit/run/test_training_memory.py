"""The need for memory before training, and what is said when it ran out."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nnunetlike.core.errors import ResourceError
from nnunetlike.networks import NetworkTask
from nnunetlike.plans.plans import Plans
from nnunetlike.run.training_memory import (
    MemoryNeed,
    estimate,
    memory_errors_explained,
    require_memory,
)
from nnunetlike.training.recipes import TRAINERS

MakePlans = Callable[[int], Plans]


def _need(
    plans: Plans,
    free: int | None,
    trainer: str = "nnUNetTrainerV2",
    identifier: str = "nnUNetPlansv2.1_big",
) -> MemoryNeed:
    stage = plans.stages[0]
    fold: Any = SimpleNamespace(
        run=SimpleNamespace(
            recipe=TRAINERS.get(trainer),
            plans_identifier=identifier,
            task="Task004_X",
            augment_on="cpu",
        ),
        stage=stage,
        share=SimpleNamespace(samples=4),
        network_task=NetworkTask(
            channels=1, classes=3, topology=stage.topology, base_features=4, conv_per_stage=2
        ),
    )
    needed = estimate(fold, "fp32", 4)
    return MemoryNeed(
        fold=fold, precision="fp32", device="cpu", needed=needed, free=free, parameters=2_500_000
    )


@pytest.fixture
def plans(tiny_plans: MakePlans) -> Plans:
    return tiny_plans(3)


def test_a_need_beyond_what_is_free_ends_before_the_first_step(plans: Plans) -> None:
    half = estimate(_need(plans, None).fold, "fp32", 2)
    with pytest.raises(ResourceError) as found:
        require_memory(_need(plans, int(half / 0.89)), ignore=False)
    text = str(found.value)
    assert "too little memory to train: about" in text
    assert "patch 8 x 16 x 16, batch 4, unet of 2.5 million parameters in fp32" in text
    assert "--batch_size 2 would fit by the estimate" in text
    assert "nnUNet_plan_and_preprocess -t Task004_X -pl3d ExperimentPlanner3D_v21 " in text
    assert "-p nnUNetPlansv2.1" in text
    assert "--ignore_memory_estimate" in text
    assert found.value.exit_code == 4


def test_the_estimate_can_be_ignored(plans: Plans, caplog: pytest.LogCaptureFixture) -> None:
    require_memory(_need(plans, 1000), ignore=True)
    assert "too little memory" in caplog.text
    assert "No batch fits" in caplog.text


def test_a_close_need_is_a_warning(plans: Plans, caplog: pytest.LogCaptureFixture) -> None:
    require_memory(_need(plans, int(_need(plans, None).needed * 1.05)), ignore=False)
    (record,) = caplog.records
    assert record.levelname == "WARNING" and "may be too little" in record.message


@pytest.mark.parametrize("free", [None, 2**50])
def test_enough_or_unknown_memory_is_no_warning(
    plans: Plans, free: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    require_memory(_need(plans, free), ignore=False)
    assert not [r for r in caplog.records if r.levelname == "WARNING"]


def test_a_unet_plus_plus_is_planned_again_for_what_it_needs(plans: Plans) -> None:
    need = _need(plans, 1000, "nnUNetPlusPlusTrainerV2", "nnUNetPlansv2.1")
    assert "-pl3d ExperimentPlanner3D_UNetPlusPlus" in need.remedy()


def test_the_smallest_plans_cannot_be_made_smaller(plans: Plans, tiny_plans: MakePlans) -> None:
    assert "smaller --batch_size" in _need(plans, 1000, identifier="nnUNetPlansv2.1").remedy()
    assert "smaller --batch_size" in _need(tiny_plans(2), 1000).remedy()


@pytest.mark.parametrize(
    ("dimension", "identifier", "free", "command"),
    [
        (3, "nnUNetPlansv2.1", 9, "4 -pl3d ExperimentPlanner3D_v21 -pl2d None, then train with -p "
         "nnUNetPlansv2.1_fit4GB"),
        (3, "nnUNetPlansUNetPlusPlus_fit6GB", 9, "4 -pl3d ExperimentPlanner3D_UNetPlusPlus -pl2d "
         "None, then train with -p nnUNetPlansUNetPlusPlus_fit4GB"),
        (2, "nnUNetPlansv2.1", 5, "2 -pl3d None, then train with -p nnUNetPlansv2.1_fit2GB"),
        (3, "nnUNetPlansv2.1_fit2GB", 5, "No planner asks for less"),
        (3, "nnUNetPlansv2.1", 1, "No planner asks for less"),
        (3, "mine", 9, "No planner asks for less"),
    ],
)  # fmt: skip
def test_plans_for_the_memory_there_is_are_proposed(
    tiny_plans: MakePlans, dimension: int, identifier: str, free: int, command: str
) -> None:
    need = _need(tiny_plans(dimension), free * 10**9, identifier=identifier)
    assert command in need.remedy()


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError("Unable to allocate 5.18 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 8 B"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_lack_of_memory_says_patch_batch_what_fits_and_how_to_plan_again(
    plans: Plans, error: Exception
) -> None:
    need = _need(plans, 2**40)
    with pytest.raises(ResourceError) as found, memory_errors_explained(need):
        raise error
    text = str(found.value)
    assert text.startswith(f"memory ran out on cpu ({error}")
    assert "patch 8 x 16 x 16, batch 4" in text
    assert "--batch_size 3 would fit" in text
    assert "nnUNet_plan_and_preprocess" in text


def test_other_errors_pass_unchanged(plans: Plans) -> None:
    with (
        pytest.raises(RuntimeError, match="mat1 and mat2"),
        memory_errors_explained(_need(plans, None)),
    ):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
