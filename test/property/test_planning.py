"""What holds for the plans of any data set."""

from __future__ import annotations

import math
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nnunetlike.core.serialization import load_pickle
from nnunetlike.experiment_planning.planners import PLANNERS
from nnunetlike.experiment_planning.planners.common import (
    coarsest_first,
    inverse_axes,
    memory_estimate,
    pool_by_spacing,
    pool_late,
    shrink,
)
from nnunetlike.experiment_planning.planners.planner_video import fitting_frame
from nnunetlike.plans.fingerprint import Fingerprint
from nnunetlike.plans.v1 import load_plans, plans_to_v1, save_plans

spacings = st.floats(0.1, 10)
axes = st.integers(2, 3).flatmap(
    lambda n: st.tuples(
        st.lists(spacings, min_size=n, max_size=n),
        st.lists(st.integers(1, 400), min_size=n, max_size=n),
    )
)
cases = st.lists(
    st.tuples(st.tuples(*[st.integers(8, 300)] * 3), st.tuples(*[st.floats(0.3, 6)] * 3)),
    min_size=1,
    max_size=7,
)


@given(axes)
def test_a_patch_can_be_pooled_as_planned(request: tuple[list[float], list[int]]) -> None:
    for rule in (pool_by_spacing, pool_late):
        found = rule(*request)
        assert found.divisor == found.topology.divisor
        assert all(p % d == 0 for p, d in zip(found.patch_size, found.divisor, strict=True))
        grown = zip(found.patch_size, request[1], found.divisor, strict=True)
        assert all(n <= p < n + d for p, n, d in grown)


@given(axes)
def test_a_shrunk_patch_needs_less_memory(request: tuple[list[float], list[int]]) -> None:
    spacing, size = request
    pooling = pool_by_spacing(spacing, [n + 32 for n in size])
    smaller = shrink(pooling, spacing, size)
    before, after = (memory_estimate(p, channels=1, classes=2) for p in (pooling, smaller))
    assert math.prod(smaller.patch_size) < math.prod(pooling.patch_size)
    assert after < before


@given(st.tuples(spacings, spacings, spacings))
def test_transposing_back_undoes_transposing(spacing: tuple[float, float, float]) -> None:
    forward = coarsest_first(spacing)
    turned = [spacing[axis] for axis in forward]
    assert turned[0] == max(spacing)
    assert tuple(turned[axis] for axis in inverse_axes(forward)) == spacing


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(cases=cases, modality=st.sampled_from(["CT", "MRI", "noNorm"]))
def test_plans_survive_the_form_of_v1(
    tmp_path: Path,
    cases: list[tuple[tuple[int, ...], tuple[float, ...]]],
    modality: str,
) -> None:
    fingerprint = Fingerprint(
        sizes=tuple(size for size, _ in cases),
        spacings=tuple(spacing for _, spacing in cases),
        classes=(1, 2),
        modalities={0: modality},
        intensities=None,
        size_reductions={f"case_{i}": 1.0 for i in range(len(cases))},
    )
    for name in ("ExperimentPlanner3D_v21", "ExperimentPlanner2D_v21"):
        plans = PLANNERS.get(name).plan(fingerprint)
        path = tmp_path / f"{name}.pkl"
        save_plans(plans, path)
        assert load_plans(path) == plans
        assert load_pickle(path) == plans_to_v1(plans)


@given(st.integers(8, 1500), st.integers(8, 1500))
def test_a_frame_is_never_cut_nor_coarser_than_it_must_be(height: int, width: int) -> None:
    coarsening, patch = fitting_frame(height, width)
    assert patch[0] * patch[1] <= 256**2 and patch[0] % 16 == patch[1] % 16 == 0
    assert all(round(n / coarsening) <= p for n, p in zip((height, width), patch, strict=True))
    assert coarsening >= 1
    finer = coarsening * 0.98
    padded = [-(-round(n / finer) // 16) * 16 for n in (height, width)]
    assert coarsening == 1 or padded[0] * padded[1] > 256**2
