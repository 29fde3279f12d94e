"""Planners by name."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from nnunetlike.core.errors import PlanError, UsageError
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.experiment_planning.planners.memory_rules import FormulaMemory, NetworkMemory
from nnunetlike.experiment_planning.planners.planner_3d import Planner3D
from nnunetlike.experiment_planning.planners.pretrained import PretrainedPlanner
from nnunetlike.experiment_planning.summarize import training_needs
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import save_plans


def fingerprint(
    cases: int, size: tuple[int, ...], spacing: tuple[float, ...], channels: int = 1
) -> Fingerprint:
    return Fingerprint(
        sizes=(size,) * cases,
        spacings=(spacing,) * cases,
        classes=(1, 2),
        modalities=dict.fromkeys(range(channels), "CT"),
        intensities=None,
        size_reductions={f"case_{i:03d}": 1.0 for i in range(cases)},
    )


LIVER = fingerprint(131, (482, 512, 512), (1, 0.7676, 0.7676))
PROSTATE = fingerprint(20, (120, 300, 300), (3, 0.8, 0.8), 4)
BRAIN = fingerprint(484, (155, 240, 240), (1, 1, 1), 4)

# Found by running the planners of nnunet 1.7.1 on the same three fingerprints.
PATCHES = {
    "ExperimentPlanner3D_v21_11GB": ((128, 160, 160), (64, 192, 192), (112, 160, 160)),
    "ExperimentPlanner3D_v21_16GB": ((160, 160, 160), (80, 224, 192), (112, 192, 192)),
    "ExperimentPlanner3D_v21_32GB": ((192, 224, 192), (112, 256, 256), (160, 256, 224)),
    "ExperimentPlanner3D_v21": ((128, 128, 128), (64, 192, 160), (96, 160, 160)),
}
LOW_SPACINGS = {
    "ExperimentPlanner3D_v21_11GB": (2.13022, 1.635157, 1.635157),
    "ExperimentPlanner3D_v21_16GB": (1.986894, 1.52514, 1.52514),
    "ExperimentPlanner3D_v21_32GB": (1.564811, 1.201149, 1.201149),
    "ExperimentPlanner3D_v21": (2.473119, 1.898366, 1.898366),
}


@pytest.mark.parametrize("name", PATCHES)
def test_planners_for_larger_memory_plan_as_those_of_v1(name: str) -> None:
    planner = PLANNERS.get(name)
    plans = [planner.plan(data) for data in (LIVER, PROSTATE, BRAIN)]
    assert tuple(p.stages[max(p.stages)].patch_size for p in plans) == PATCHES[name]
    assert [len(p.stages) for p in plans] == [2, 1, 1]
    assert plans[0].stages[0].patch_size == PATCHES[name][0]
    assert plans[0].stages[0].spacing == pytest.approx(LOW_SPACINGS[name], rel=1e-5)


@pytest.mark.parametrize("name", ["ExperimentPlanner3D_v21", "ExperimentPlanner3D_UNetPlusPlus"])
@pytest.mark.parametrize("data", [LIVER, PROSTATE, BRAIN])
def test_plans_for_a_smaller_gpu_need_no_more_than_it_has(name: str, data: Fingerprint) -> None:
    plans = PLANNERS.get(name).within(6).plan(data)
    network = "unet_plus_plus" if "PlusPlus" in name else "unet"
    for stage in plans.stages.values():
        _, mixed = training_needs(plans, stage)[network]
        assert mixed <= 6 * 10**9


def test_plans_for_8_gb_are_those_for_no_size_but_for_their_names() -> None:
    planner = PLANNERS.get("ExperimentPlanner3D_v21")
    plans, fit = planner.plan(LIVER), planner.within(8).plan(LIVER)
    assert replace(fit, data_identifier=plans.data_identifier) == plans
    assert fit.data_identifier == "nnUNetData_plans_v2.1_fit8GB"


def test_a_smaller_gpu_gets_a_smaller_patch_or_batch_in_2d_too() -> None:
    planner = PLANNERS.get("ExperimentPlanner2D_v21")
    one, other = planner.plan(LIVER).stages[0], planner.within(4).plan(LIVER).stages[0]
    assert other.batch_size * math.prod(other.patch_size) < one.batch_size * math.prod(
        one.patch_size
    )


def test_plans_taken_over_have_no_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--gpu_mem 6: plans that are taken over"):
        PretrainedPlanner(tmp_path / "x.pkl", "X").within(6)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [
        ("ExperimentPlanner3D_v21", ""),
        ("ExperimentPlanner3D_v21_11GB", "_big"),
        ("ExperimentPlanner3D_v21_16GB", "_16GB"),
        ("ExperimentPlanner3D_v21_32GB", "_verybig"),
    ],
)
def test_identifiers_are_those_of_v1(name: str, suffix: str) -> None:
    planner = PLANNERS.get(name)
    assert planner.plans_identifier == f"nnUNetPlansv2.1{suffix}"
    assert planner.plan(PROSTATE).data_identifier == f"nnUNetData_plans_v2.1{suffix}"


def test_every_planner_writes_files_of_its_own() -> None:
    planners = [PLANNERS.get(name) for name in PLANNERS.names()]
    files = {(p.plans_identifier, p.plan(BRAIN_SMALL).data_identifier) for p in planners}
    assert len(files) == len(planners)


BRAIN_SMALL = fingerprint(8, (44, 52, 48), (1, 1, 1), 2)


def small_plans(name: str) -> Plans:
    return PLANNERS.get(name).plan(BRAIN_SMALL)


def test_unet_plus_plus_gets_a_smaller_patch_that_fits_the_budget_of_the_unet() -> None:
    planner = PLANNERS.get("ExperimentPlanner3D_UNetPlusPlus")
    assert isinstance(planner, Planner3D)
    assert isinstance(planner.memory, NetworkMemory)
    plans = planner.plan(fingerprint(9, (140, 150, 160), (1, 1, 1)))
    unet = PLANNERS.get("ExperimentPlanner3D_v21").plan(plans.fingerprint)
    assert math.prod(plans.stages[0].patch_size) < math.prod(unet.stages[0].patch_size)
    budget = planner.memory.budget_bytes
    assert training_needs(plans, plans.stages[0])["unet_plus_plus"][0] <= budget
    assert training_needs(unet, unet.stages[0])["unet_plus_plus"][0] > budget


def test_small_images_need_no_smaller_patch_for_unet_plus_plus() -> None:
    unet, plus_plus = map(
        small_plans, ("ExperimentPlanner3D_v21", "ExperimentPlanner3D_UNetPlusPlus")
    )
    assert plus_plus.stages[0].patch_size == unet.stages[0].patch_size


@pytest.mark.parametrize("name", ["ExperimentPlanner3D_v21", "ExperimentPlanner2D_v21"])
def test_a_data_set_without_cases_is_refused(name: str) -> None:
    with pytest.raises(PlanError, match="no case"):
        PLANNERS.get(name).plan(fingerprint(0, (1, 1, 1), (1, 1, 1)))


def test_a_patch_that_cannot_shrink_is_refused() -> None:
    planner = Planner3D(memory=FormulaMemory(1.0))
    with pytest.raises(PlanError, match="no patch fits"):
        planner.plan(BRAIN_SMALL)


def test_an_unknown_planner_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'ExperimentPlanner3D_v21'"):
        PLANNERS.get("ExperimentPlanner3D_v2")


def test_pretrained_plans_keep_all_but_the_classes(tmp_path: Path) -> None:
    theirs = PLANNERS.get("ExperimentPlanner3D_v21").plan(PROSTATE)
    path = tmp_path / "nnUNetPlansv2.1_plans_3D.pkl"
    save_plans(theirs, path)
    own = replace(BRAIN, classes=(1, 2, 3, 4))
    planner = PretrainedPlanner(path, "PROSTATE")
    plans = planner.plan(own)
    assert planner.plans_identifier == "nnUNetPlans_pretrained_PROSTATE"
    assert plans.data_identifier == "nnUNetData_pretrained_PROSTATE"
    assert plans.classes == (1, 2, 3, 4)
    assert (plans.stages, plans.fingerprint) == (theirs.stages, theirs.fingerprint)


def test_pretrained_plans_for_other_channels_keep_network_and_spacing(tmp_path: Path) -> None:
    path = tmp_path / "plans_3D.pkl"
    theirs = PLANNERS.get("ExperimentPlanner3D_v21").plan(PROSTATE)
    save_plans(theirs, path)
    own = replace(LIVER, modalities={0: "MR"}, classes=(1, 2, 3))
    plans = PretrainedPlanner(path, "X").plan(own)
    assert plans.stages == theirs.stages
    assert plans.transpose_forward == theirs.transpose_forward
    assert (plans.num_channels, plans.classes) == (1, (1, 2, 3))
    assert plans.normalization_schemes == {0: "nonCT"}
    assert plans.fingerprint == own


def test_pretrained_plans_in_2d_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "plans_2D.pkl"
    save_plans(PLANNERS.get("ExperimentPlanner2D_v21").plan(PROSTATE), path)
    with pytest.raises(PlanError, match="2D plans"):
        PretrainedPlanner(path, "X").plan(PROSTATE)
