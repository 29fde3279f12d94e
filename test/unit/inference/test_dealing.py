"""What a case costs a process that predicts it."""

from __future__ import annotations

from typing import Any

import torch

from nnunetlike.core.typing import Shape3
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.dealing import prediction_cost
from nnunetlike.inference.strategies import Request


def record(resampled: Shape3, source: Shape3 = (1, 1, 1)) -> CaseRecord:
    return CaseRecord(
        original_size=source,
        original_spacing=(1.0, 1.0, 1.0),
        image_files=("c_0000.nii.gz",),
        label_file=None,
        itk_origin=(0.0, 0.0, 0.0),
        itk_spacing=(1.0, 1.0, 1.0),
        itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        crop_box=((0, 1), (0, 1), (0, 1)),
        classes=(0.0, 1.0),
        size_after_cropping=source,
        size_after_resampling=resampled,
        spacing_after_resampling=(1.0, 1.0, 1.0),
    )


def request(patch: tuple[int, ...], **others: Any) -> Request:
    return Request(patch_size=patch, device=torch.device("cpu"), **others)


def test_windows_count_with_all_their_voxels() -> None:
    # 12 voxels take windows of 8 at 0 and 4; 8 and 3 take one each, the latter padded
    assert prediction_cost(record((12, 8, 3)), request((8, 8, 8)), 0) == 2 * 8**3


def test_slices_have_windows_of_their_own() -> None:
    assert prediction_cost(record((5, 8, 12)), request((8, 8)), 0) == 5 * 2 * 8**2


def test_mirrored_views_multiply_the_windows() -> None:
    plain = prediction_cost(record((8, 8, 8)), request((8, 8, 8)), 0)
    mirrored = prediction_cost(record((8, 8, 8)), request((8, 8, 8), mirror_axes=(0, 1, 2)), 0)
    assert mirrored == 8 * plain


def test_export_counts_every_class_of_the_source_grid() -> None:
    small = prediction_cost(record((8, 8, 8)), request((8, 8, 8)), 3)
    large = prediction_cost(record((8, 8, 8), source=(10, 20, 30)), request((8, 8, 8)), 3)
    assert large - small == 3 * (6000 - 1)
