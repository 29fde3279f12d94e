"""What every registered planner keeps."""

from __future__ import annotations

import pytest

from nnunetlike.core.errors import PlanError
from nnunetlike.core.typing import Size, Spacing
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.v1 import plans_from_v1, plans_to_v1

SHAPES: dict[str, tuple[Size, Spacing]] = {
    "isotropic": ((40, 44, 48), (1, 1, 1)),
    "coarse first axis": ((12, 70, 80), (5, 1, 1)),
    "coarse last axis": ((70, 80, 12), (1, 1, 5)),
    "one slice": ((1, 90, 100), (999, 1, 1)),
}


def four_cases(size: Size, spacing: Spacing) -> Fingerprint:
    return Fingerprint(
        sizes=(size,) * 4,
        spacings=(spacing,) * 4,
        classes=(1,),
        modalities={0: "MRI"},
        intensities=None,
        size_reductions={f"case_{i}": 1.0 for i in range(4)},
    )


@pytest.mark.parametrize("name", PLANNERS.names())
def test_images_too_small_to_pool_are_refused(name: str) -> None:
    with pytest.raises(PlanError, match="too few for a network"):
        PLANNERS.get(name).plan(four_cases((20, 5, 5), (3, 1, 1)))


@pytest.mark.parametrize("name", PLANNERS.names())
@pytest.mark.parametrize("shape", SHAPES)
def test_a_planner_plans(name: str, shape: str) -> None:
    fingerprint = four_cases(*SHAPES[shape])
    plans = PLANNERS.get(name).plan(fingerprint)
    forward, backward = plans.transpose_forward, plans.transpose_backward
    assert [forward[axis] for axis in backward] == [0, 1, 2]
    assert plans.fingerprint == fingerprint
    assert plans_from_v1(plans_to_v1(plans)) == plans
    for stage in plans.stages.values():
        assert stage.batch_size >= 1
        assert stage.num_pool_per_axis == tuple(
            sum(pool[axis] == 2 for pool in stage.topology.pool_op_kernel_sizes)
            for axis in range(stage.dimension)
        )
        assert all(patch >= 1 for patch in stage.patch_size)
