from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnunetlike.core.errors import DataError, PlanError, UsageError
from nnunetlike.core.serialization import load_pickle, save_pickle, to_plain
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.topology import Topology
from nnunetlike.plans.v1 import load_plans, plans_from_v1, plans_to_v1, save_plans

TRAINED = "model/RESULTS_FOLDER/nnUNet/{}/Task071_CTISO/nnUNetTrainerV2__nnUNetPlans_tiny/plans.pkl"


def strip_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: strip_lists(v) for k, v in value.items()}
    return [strip_lists(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.fixture
def content() -> dict[str, Any]:
    return {
        "modalities": {0: "MRI"},
        "normalization_schemes": {0: "nonCT"},
        "dataset_properties": {
            "all_sizes": [(8, 16, 16)],
            "all_spacings": [[1.0, 1.0, 1.0]],
            "all_classes": [1],
            "modalities": {0: "MRI"},
            "intensityproperties": None,
            "size_reductions": {"a": 1.0},
        },
        "all_classes": [1],
        "base_num_features": 30,
        "use_mask_for_norm": {0: False},
        "data_identifier": "nnUNet",
        "plans_per_stage": {
            0: {
                "batch_size": 2,
                "num_pool_per_axis": [1, 3, 2],
                "patch_size": [8, 16, 16],
                "median_patient_size_in_voxels": [8, 16, 16],
                "current_spacing": [1.0, 1.0, 1.0],
                "original_spacing": [1.0, 1.0, 1.0],
                "do_dummy_2D_data_aug": False,
            }
        },
    }


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_plans_of_v1_come_back_equal(golden: Path, tmp_path: Path, configuration: str) -> None:
    original = load_pickle(golden / TRAINED.format(configuration))
    plans = plans_from_v1(original)
    written = plans_to_v1(plans)
    assert list(written) == list(original)
    assert strip_lists(written) == strip_lists(to_plain(original))
    save_plans(plans, tmp_path / "plans.pkl")
    assert load_plans(tmp_path / "plans.pkl") == plans
    assert b"numpy" not in (tmp_path / "plans.pkl").read_bytes()
    assert (tmp_path / "plans.json").is_file()


def test_plans_of_early_versions_get_their_defaults(content: dict[str, Any]) -> None:
    plans = plans_from_v1(content)
    assert plans.conv_per_stage == 2 and plans.transpose_forward == (0, 1, 2)
    topology = plans.stages[0].topology
    assert topology.pool_op_kernel_sizes == ((1, 2, 1), (1, 2, 2), (2, 2, 2))
    assert topology.conv_kernel_sizes == ((3, 3, 3),) * 4


def test_unknown_keys_are_kept(content: dict[str, Any]) -> None:
    content["segmentation_export_params"] = {"interpolation_order": 0}
    plans = plans_from_v1(content)
    assert plans_to_v1(plans)["segmentation_export_params"] == {"interpolation_order": 0}


def test_a_missing_key_is_named(content: dict[str, Any], tmp_path: Path) -> None:
    del content["modalities"]
    save_pickle(content, tmp_path / "plans.pkl")
    with pytest.raises(DataError, match="lacks the entry 'modalities'"):
        load_plans(tmp_path / "plans.pkl")


def test_a_patch_that_cannot_be_pooled_is_refused(content: dict[str, Any]) -> None:
    content["plans_per_stage"][0]["patch_size"] = [8, 12, 16]
    with pytest.raises(PlanError, match=r"multiples of \(2, 8, 4\)"):
        plans_from_v1(content)


def test_one_stage_has_no_low_resolution(content: dict[str, Any]) -> None:
    plans: Plans = plans_from_v1(content)
    assert plans.stage_number("3d_fullres") == plans.stage_number("2d") == 0
    with pytest.raises(UsageError, match="Use 3d_fullres"):
        plans.stage_number("3d_lowres")
    two = replace(plans, stages={0: plans.stages[0], 1: plans.stages[0]})
    assert two.stage_number("3d_fullres") == 1 and two.stage_number("3d_lowres") == 0


def test_a_topology_needs_one_kernel_more_than_poolings() -> None:
    with pytest.raises(PlanError, match="need one kernel more"):
        Topology.of([[2, 2]], [[3, 3]])
    assert Topology.of([[2, 1], [2, 2]], [[3, 3]] * 3).divisor == (4, 2)
