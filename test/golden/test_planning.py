"""Planning against the numbers of nnU-Net 1.7.1 (golden/open/planning)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nnunetlike.data.splits import make_splits, split_for
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.experiment_planning.planners.common import (
    Pooling,
    memory_estimate,
    pool_by_spacing,
    pool_late,
    target_spacing,
)
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.v1 import plans_to_v1


def described(pooling: Pooling) -> dict[str, Any]:
    return {
        "num_pool_per_axis": list(pooling.counts),
        "pool_op_kernel_sizes": [list(p) for p in pooling.topology.pool_op_kernel_sizes],
        "conv_kernel_sizes": [list(k) for k in pooling.topology.conv_kernel_sizes],
        "patch_size": list(pooling.patch_size),
        "must_be_divisible_by": list(pooling.divisor),
    }


def rows(golden: Path) -> list[dict[str, Any]]:
    return list(json.loads((golden / "planning" / "pool_conv_vram.json").read_text()))


def test_pooling_by_spacing_is_that_of_v1(golden: Path) -> None:
    for row in rows(golden):
        assert described(pool_by_spacing(row["spacing"], row["patch_in"])) == row["v21"], row


def test_late_pooling_is_that_of_v1_where_v1_does_not_fail(golden: Path) -> None:
    compared = [row for row in rows(golden) if "error" not in row["pool_late_v2"]]
    assert len(compared) == 33  # a single slice fails in v1
    for row in compared:
        assert described(pool_late(row["spacing"], row["patch_in"])) == row["pool_late_v2"], row


@pytest.mark.parametrize(
    ("key", "settings"),
    [
        ("vram_base32_cap320_mod1_cls3", {}),
        ("vram_base30_cap320_mod1_cls3", {"base_features": 30}),
        ("vram_base32_cap512_mod1_cls3", {"max_features": 512}),
        ("vram_base30_cap512_mod1_cls3", {"base_features": 30, "max_features": 512}),
        ("vram_base32_cap320_mod4_cls7_conv3", {"channels": 4, "classes": 7, "conv_per_stage": 3}),
    ],
)
def test_memory_estimates_are_those_of_v1(golden: Path, key: str, settings: dict[str, int]) -> None:
    found = [row for row in rows(golden) if key in row]
    assert found
    for row in found:
        pooling = pool_by_spacing(row["spacing"], row["patch_in"])
        asked = {"channels": 1, "classes": 3, **settings}
        assert memory_estimate(pooling, **asked) == row[key], row


def fingerprint(row: dict[str, Any]) -> Fingerprint:
    cases = len(row["all_sizes"])
    return Fingerprint(
        sizes=tuple(tuple(size) for size in row["all_sizes"]),
        spacings=tuple(tuple(spacing) for spacing in row["all_spacings"]),
        classes=tuple(range(1, row["num_fg_classes"] + 1)),
        modalities=dict.fromkeys(range(row["num_modalities"]), row["modality"]),
        intensities=None,
        size_reductions={f"case_{i:03d}": row["size_reduction_each_case"] for i in range(cases)},
    )


def fingerprints(golden: Path) -> list[dict[str, Any]]:
    return list(json.loads((golden / "planning" / "fingerprint_to_plans.json").read_text()))


@pytest.mark.parametrize("dimension", ["3D", "2D"])
def test_plans_of_18_fingerprints_are_those_of_v1(golden: Path, dimension: str) -> None:
    planner = PLANNERS.get(f"ExperimentPlanner{dimension}_v21")
    for row in fingerprints(golden):
        expected = row[f"{dimension}_v21"]
        plans = planner.plan(fingerprint(row))
        content = json.loads(json.dumps(plans_to_v1(plans)))
        for key in expected.keys() - {"target_spacing", "plans_fname", "conv_per_stage"}:
            assert content[key] == expected[key], (row["name"], key)
        assert content.get("conv_per_stage") == expected["conv_per_stage"]
        assert f"{planner.plans_identifier}_plans_{dimension}.pkl" == expected["plans_fname"]


def test_target_spacings_are_those_of_v1(golden: Path) -> None:
    for row in fingerprints(golden):
        expected = row["3D_v21"]["target_spacing"]
        assert list(target_spacing(fingerprint(row))) == pytest.approx(expected, rel=1e-12)


def test_plans_hold_plain_python_types_only(golden: Path) -> None:
    plain = {dict, list, tuple, str, int, float, bool, type(None)}

    def check(value: Any) -> None:
        assert type(value) in plain or type(value).__name__ == "OrderedDict", type(value)
        for item in value.items() if isinstance(value, dict) else ():
            check(item)
        for item in value if isinstance(value, (list, tuple)) else ():
            check(item)

    row = fingerprints(golden)[0]
    for name in ("ExperimentPlanner3D_v21", "ExperimentPlanner2D_v21"):
        check(plans_to_v1(PLANNERS.get(name).plan(fingerprint(row))))


def test_splits_are_those_of_v1(golden: Path) -> None:
    content = json.loads((golden / "planning" / "splits.json").read_text())
    for row in content.values():
        ids = row["identifiers_given"]
        splits = make_splits(ids)
        random = [(split_for(n, splits, ids), row[f"fold{n}_random"]) for n in (5, 7)]
        for ours, theirs in (*zip(splits, row["folds"], strict=True), *random):
            assert list(ours.train) == theirs["train"]
            assert list(ours.val) == theirs["val"]
