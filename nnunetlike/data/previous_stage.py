"""Segmentations by the low resolution, which the full resolution of a cascade takes as channels.

They lie on the grid of the full resolution's preprocessed cases, in `pred_next_stage` of the model
that made them: `ID_segFromPrevStage.npz` with the array `data`, uint8 (D, H, W), as in nnU-Net v1.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnunetlike.core.errors import ShapeError
from nnunetlike.core.serialization import atomic_path
from nnunetlike.core.typing import LabelMap
from nnunetlike.data.store import load_npz, map_npy, save_npz

FOLDER = "pred_next_stage"
ENDING = "_segFromPrevStage"


@dataclass(frozen=True)
class PreviousStage:
    """A folder of such segmentations."""

    folder: Path

    def missing(self, case_ids: Iterable[str]) -> list[str]:
        """Return the cases that have none."""
        return [case for case in case_ids if not self._packed(case).is_file()]

    def write(self, case_id: str, label: npt.NDArray[np.uint8]) -> None:
        """Write the segmentation of a case."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._unpacked(case_id).unlink(missing_ok=True)
        save_npz(self._packed(case_id), {"data": label})  # type: ignore[dict-item]  # integers too

    def load(self, case_id: str, shape: Sequence[int]) -> LabelMap:
        """Return the segmentation of a case, memory-mapped read-only when it was unpacked.

        Raises:
            DataError: it is missing or damaged.
            ShapeError: it is not of the shape (D, H, W) that the case has now.
        """
        unpacked = self._unpacked(case_id)
        if unpacked.is_file():
            label = np.asanyarray(map_npy(unpacked), np.uint8)
        else:
            label = load_npz(self._packed(case_id)).astype(np.uint8, copy=False)
        if label.shape != tuple(shape):
            raise ShapeError(
                f"{self._packed(case_id)} has {label.shape} voxels (D, H, W), but the case "
                f"{tuple(shape)}: the task was planned anew since. Validate the folds of 3d_lowres "
                "again (nnUNet_train 3d_lowres ... -val), which makes it"
            )
        return label

    def unpack(self, case_id: str) -> None:
        """Write the segmentation uncompressed beside its npz unless a current one is there."""
        packed, target = self._packed(case_id), self._unpacked(case_id)
        if target.is_file() and target.stat().st_mtime_ns >= packed.stat().st_mtime_ns:
            return
        with atomic_path(target) as temporary:
            np.save(temporary, load_npz(packed))

    def _packed(self, case_id: str) -> Path:
        return self.folder / f"{case_id}{ENDING}.npz"

    def _unpacked(self, case_id: str) -> Path:
        return self.folder / f"{case_id}{ENDING}.npy"


def one_hot(label: LabelMap, classes: Sequence[int]) -> npt.NDArray[np.float32]:
    """Return a channel per class, 1 where the label is it and 0 elsewhere: (K - 1, *label)."""
    return np.stack([label == value for value in classes]).astype(np.float32)
