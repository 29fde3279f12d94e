"""A small raw task that tests spoil."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunetlike.data.doctor.examination import Examination, examine_task

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
SHAPE = (4, 5, 6)


@dataclass
class RawTask:
    """A raw task on disk: training cases a and b, test case t, two channels."""

    folder: Path

    def write(self, name: str, voxels: Any, **geometry: Any) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = sitk.GetImageFromArray(voxels)
        image.SetSpacing(geometry.get("spacing", (1.0, 1.0, 2.0)))
        image.SetOrigin(geometry.get("origin", (0.0, 0.0, 0.0)))
        image.SetDirection(geometry.get("direction", IDENTITY))
        sitk.WriteImage(image, str(path))
        return path

    def image(self, name: str, **geometry: Any) -> Path:
        voxels = np.ones(geometry.pop("shape", SHAPE), np.float32)
        return self.write(f"{name}.nii.gz", voxels, **geometry)

    def label(self, case_id: str, *values: float, dtype: Any = np.uint8, **geometry: Any) -> Path:
        voxels = np.zeros(SHAPE, dtype)
        voxels.flat[: len(values)] = values
        return self.write(f"labelsTr/{case_id}.nii.gz", voxels, **geometry)

    def describe(self, **changes: Any) -> None:
        content = {
            "name": "X",
            "modality": {"0": "T1", "1": "T2"},
            "labels": {"0": "background", "1": "x", "2": "y"},
            "numTraining": 2,
            "training": [self.entry("a"), self.entry("b")],
            "test": ["./imagesTs/t.nii.gz"],
            **changes,
        }
        (self.folder / "dataset.json").write_text(json.dumps(content))

    def one_channel(self, **changes: Any) -> None:
        for path in self.folder.glob("images*/*_0001.nii.gz"):
            path.unlink()
        self.describe(modality={"0": "T1"}, **changes)

    @staticmethod
    def entry(case_id: str) -> dict[str, str]:
        return {"image": f"./imagesTr/{case_id}.nii.gz", "label": f"./labelsTr/{case_id}.nii.gz"}

    def examine(self) -> Examination:
        return examine_task(self.folder, processes=1)

    def found(self) -> dict[str, list[str]]:
        """Complaints as text, by the name of their kind."""
        found: dict[str, list[str]] = {}
        for complaint in self.examine().complaints:
            found.setdefault(complaint.kind.name, []).append(str(complaint))
        return found

    def voxels(self, name: str) -> Any:
        return np.asarray(nibabel.load(self.folder / name).dataobj)

    def content(self) -> Any:
        return json.loads((self.folder / "dataset.json").read_text())


@pytest.fixture
def task(tmp_path: Path) -> RawTask:
    """A sound raw task."""
    made = RawTask(tmp_path / "raw" / "Task001_X")
    for case_id in ("a", "b"):
        made.label(case_id, 1, 2)
    for case_id in ("imagesTr/a", "imagesTr/b", "imagesTs/t"):
        for channel in range(2):
            made.image(f"{case_id}_{channel:04d}")
    made.describe()
    return made
