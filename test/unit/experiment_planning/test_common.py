"""Steps of planning against values derived by hand."""

from __future__ import annotations

import pytest

from nnunetlike.experiment_planning.planners.common import (
    batch_limit,
    coarser_spacing,
    coarsest_first,
    inverse_axes,
    is_flat,
    isotropic_patch,
    masks_for_normalization,
    median_shape,
    memory_estimate,
    normalization_scheme,
    pool_by_spacing,
    rounded_shape,
    shrink,
    target_spacing,
)
from nnunetlike.plans.fingerprint import Fingerprint


def fingerprint(
    sizes: list[tuple[int, ...]],
    spacings: list[tuple[float, ...]],
    modality: str = "MRI",
    reduction: float = 1.0,
) -> Fingerprint:
    return Fingerprint(
        sizes=tuple(sizes),
        spacings=tuple(spacings),
        classes=(1, 2),
        modalities={0: modality},
        intensities=None,
        size_reductions={f"case_{i}": reduction for i in range(len(sizes))},
    )


@pytest.mark.parametrize(
    ("modality", "scheme"),
    [("CT", "CT"), ("ct", "CT"), ("noNorm", "noNorm"), ("MRI", "nonCT"), ("CTA", "nonCT")],
)
def test_a_modality_has_its_scheme(modality: str, scheme: str) -> None:
    assert normalization_scheme(modality) == scheme


@pytest.mark.parametrize(
    ("modality", "reduction", "uses_mask"),
    [("MRI", 0.74, True), ("MRI", 0.75, False), ("CT", 0.5, False), ("ct", 0.5, True)],
)
def test_mostly_empty_images_are_normalised_inside_the_mask(
    modality: str, reduction: float, uses_mask: bool
) -> None:
    found = masks_for_normalization(fingerprint([(9, 9, 9)], [(1, 1, 1)], modality, reduction))
    assert found == {0: uses_mask}


def test_an_isotropic_target_is_the_median() -> None:
    found = target_spacing(
        fingerprint([(90, 90, 90)] * 3, [(1.0, 1, 1), (1.2, 0.8, 0.8), (3.0, 1.5, 1.5)])
    )
    assert found == (1.2, 1.0, 1.0)


def test_images_are_2d_when_all_are_one_voxel_thick_along_one_axis() -> None:
    spacings = [(999.0, 1.0, 1.0)] * 2
    assert is_flat(fingerprint([(1, 30, 40), (1, 20, 50)], spacings))
    assert is_flat(fingerprint([(30, 1, 40), (20, 1, 50)], spacings))
    assert not is_flat(fingerprint([(1, 30, 40), (2, 20, 50)], spacings))
    assert not is_flat(fingerprint([(1, 30, 40), (20, 1, 50)], spacings))


def test_a_coarse_short_axis_gets_its_tenth_percentile() -> None:
    # spacings 4, 5, 6: the 10th percentile lies 0.2 of the way from 4 to 5
    found = target_spacing(
        fingerprint([(20, 300, 300)] * 3, [(4.0, 1, 1), (5.0, 1, 1), (6.0, 1, 1)])
    )
    assert found == pytest.approx((4.2, 1, 1))


def test_a_coarse_axis_never_gets_finer_than_the_others() -> None:
    # 1, 1, 5, 5, 5: the 10th percentile is 1 on the coarse axis, the others have 1.5
    spacings = [(z, 1.5, 1.5) for z in (1.0, 1.0, 5.0, 5.0, 5.0)]
    assert target_spacing(fingerprint([(20, 300, 300)] * 5, spacings)) == pytest.approx(
        (1.5 + 1e-5, 1.5, 1.5), abs=1e-12
    )


def test_a_coarse_long_axis_keeps_the_median() -> None:
    spacings = [(4.0, 1.0, 1.0), (5.0, 1.0, 1.0), (6.0, 1.0, 1.0)]
    assert target_spacing(fingerprint([(200, 300, 300)] * 3, spacings)) == (5, 1, 1)


@pytest.mark.parametrize(
    ("spacing", "axes", "inverse"),
    [
        ((1, 1, 1), (0, 1, 2), (0, 1, 2)),
        ((1, 1, 3), (2, 0, 1), (1, 2, 0)),
        ((1, 3, 1), (1, 0, 2), (1, 0, 2)),
    ],
)
def test_the_coarsest_axis_comes_first(
    spacing: tuple[float, ...], axes: tuple[int, ...], inverse: tuple[int, ...]
) -> None:
    assert coarsest_first(spacing) == axes
    assert inverse_axes(coarsest_first(spacing)) == inverse


def test_the_median_shape_is_not_rounded() -> None:
    found = median_shape(fingerprint([(10, 10, 10), (13, 10, 10)], [(1, 1, 1)] * 2), (2, 1, 1))
    assert found == (5.75, 10, 10)
    assert rounded_shape(found, (2, 1, 1), (2, 1, 1)) == (6, 10, 10)


def test_the_first_patch_is_a_cube_in_mm_clipped_to_the_image() -> None:
    assert isotropic_patch((2.0, 1.0, 1.0), (600, 1100, 500)) == (512, 1024, 500)


def test_pooling_waits_for_the_coarse_axis() -> None:
    # 4 mm against 1 mm: two poolings in-plane make 4 x 4 x 4 mm, then all axes pool
    found = pool_by_spacing((4, 1, 1), (16, 64, 64))
    assert found.topology.pool_op_kernel_sizes == ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    assert found.topology.conv_kernel_sizes == ((1, 3, 3), (1, 3, 3), *[(3, 3, 3)] * 3)
    assert (found.counts, found.patch_size) == ((2, 4, 4), (16, 64, 64))


def test_a_patch_is_padded_to_what_pooling_needs() -> None:
    found = pool_by_spacing((1, 1), (33, 17))  # 33 -> 17 -> 9 -> 5, 17 -> 9 -> 5
    assert (found.counts, found.patch_size) == ((3, 2), (40, 20))


def test_an_image_too_small_to_pool_is_left_alone() -> None:
    found = pool_by_spacing((1, 1, 1), (7, 7, 7))
    assert (found.topology.num_pools, found.patch_size) == (0, (7, 7, 7))
    assert memory_estimate(found, channels=1, classes=2) == (5 * 32 + 1 + 2) * 343


def test_the_memory_of_one_pooling_is_counted_by_hand() -> None:
    found = pool_by_spacing((1, 1), (8, 8))
    # 64 voxels: five maps of 32, one channel, two classes; below 16 voxels: two maps of 64
    assert memory_estimate(found, channels=1, classes=2) == 64 * (5 * 32 + 3) + 16 * 2 * 64


def test_the_axis_that_covers_most_of_the_image_shrinks() -> None:
    # 64 has the divisor 16; less 16 it is 48, whose divisor 8 is then taken off 64
    found = pool_by_spacing((1, 1, 1), (64, 64, 64))
    assert shrink(found, (1, 1, 1), (128, 64, 128)).patch_size == (64, 56, 64)


def test_on_ties_the_last_axis_shrinks() -> None:
    found = pool_by_spacing((1, 1, 1), (128, 128, 128))
    assert shrink(found, (1, 1, 1), (200, 200, 200)).patch_size == (128, 128, 112)


def test_a_batch_covers_five_percent_of_the_voxels() -> None:
    assert batch_limit((100, 100, 100), (50, 100, 100), 25) == 2  # 2.5, half to even
    assert batch_limit((100, 100, 100), (50, 100, 100), 35) == 4  # 3.5


def test_fine_axes_get_coarser_first() -> None:
    assert coarser_spacing((5, 1, 2.4)) == pytest.approx((5, 1.01, 2.424))
    assert coarser_spacing((2, 1, 1)) == pytest.approx((2.02, 1.01, 1.01))
