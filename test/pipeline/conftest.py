"""A preprocessed task that trains within seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.record import CaseRecord
from nnunetlike.data.splits import Split, save_splits
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v1 import save_plans

TASK = "Task901_Tiny"
SHAPE = (8, 16, 16)


def _case(number: int) -> tuple[np.ndarray, CaseRecord]:
    rng = np.random.default_rng(number)
    image = rng.normal(size=SHAPE).astype(np.float32)
    label = np.zeros(SHAPE, np.float32)
    label[2:6, 4:12, 4:9] = 1
    label[3:5, 4:12, 10:12] = 2
    image += label
    record = CaseRecord(
        original_size=SHAPE,
        original_spacing=(1.0, 1.0, 1.0),
        image_files=(f"c_{number}_0000.nii.gz",),
        label_file=None,
        itk_origin=(0.0, 0.0, 0.0),
        itk_spacing=(1.0, 1.0, 1.0),
        itk_direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
        crop_box=((0, SHAPE[0]), (0, SHAPE[1]), (0, SHAPE[2])),
        classes=(0.0, 1.0, 2.0),
        size_after_cropping=SHAPE,
        use_nonzero_mask={0: False},
        size_after_resampling=SHAPE,
        spacing_after_resampling=(1.0, 1.0, 1.0),
        class_locations={c: np.argwhere(label == c) for c in (1, 2)},
    )
    return np.stack([image, label]), record


@pytest.fixture
def tiny_task(
    home: Path, tiny_plans: Callable[[int], Plans], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A preprocessed task of six cases for 2d and 3d_fullres; returns the home."""
    monkeypatch.setenv("nnUNet_def_n_proc", "0")
    dataset = home / "preprocessed" / TASK
    references = dataset / "gt_segmentations"
    references.mkdir(parents=True)
    for dimension in (2, 3):
        plans = tiny_plans(dimension)
        save_plans(plans, dataset / f"nnUNetPlansv2.1_plans_{dimension}D.pkl")
        store = CaseStore(dataset / plans.stage_folder(0))
        for number in range(6):
            store.write(f"c_{number}", *_case(number))
    for number in range(6):
        label = sitk.GetImageFromArray(_case(number)[0][1].astype(np.uint8))
        sitk.WriteImage(label, str(references / f"c_{number}.nii.gz"))
    names = [f"c_{i}" for i in range(6)]
    save_splits([Split(tuple(names[:4]), tuple(names[4:]))], dataset / "splits_final.pkl")
    return home
