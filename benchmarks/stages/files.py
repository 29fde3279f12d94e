"""Stages that read and write files; the pages are in memory, for discs differ too much."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.stages import Stage, Work, equal, within_range
from benchmarks.stages import synthetic as made
from benchmarks.stages.arrays import save


def _image(folder: Path, rng: np.random.Generator, *, shape: Sequence[int]) -> None:
    """Write a CT; no `image.nii` lies beside it, which ITK would read in its place."""
    import SimpleITK as sitk

    voxels = np.round(made.image(rng, shape)[0] / 4).astype(np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(folder / "image.nii.gz"))


def _label(folder: Path, rng: np.random.Generator, *, shape: Sequence[int], labels: int) -> None:
    _image(folder, rng, shape=shape)
    save(folder, label=made.labels(rng, shape, labels))


def _stored(
    folder: Path, rng: np.random.Generator, *, shape: Sequence[int], patch: int,
    start: Sequence[int],
) -> None:  # fmt: skip
    """Write a preprocessed case as v1 stores it; each side brings it into its own store."""
    label = made.labels(rng, shape, 3).astype(np.float32)
    data = np.concatenate([made.image(rng, shape) / 100, label[None]])
    (folder / "ours").mkdir()
    np.savez(folder / "ours" / "case.npz", data=data)


STAGES = (
    Stage(
        name="read_image", title="read .nii.gz, 75x360x360 int16",
        make=_image,
        sizes={"full": {"shape": (75, 360, 360)}, "quick": {"shape": (30, 128, 128)},
               "tiny": {"shape": (5, 6, 7)}},
        targets={"v1": 1.2, "v2": 1.2, "naive": 1}, agree={"": within_range(0)},
        work=lambda p: Work(bytes=6 * float(np.prod(p["shape"]))),
    ),
    Stage(
        name="write_label", title="write label .nii.gz, 25 labels, 150x512x512",
        make=_label,
        sizes={"full": {"shape": (150, 512, 512), "labels": 25},
               "quick": {"shape": (40, 160, 160), "labels": 25},
               "tiny": {"shape": (5, 6, 7), "labels": 2}},
        targets={"v1": 10, "v2": 10, "naive": 1}, agree={},
        work=lambda p: Work(bytes=float(np.prod(p["shape"]))),
        note="what was written is read back and compared by the tests of the readers",
    ),
    Stage(
        name="patch_128", title="patch of 128 voxels a side from the store, warm",
        make=_stored,
        sizes={"full": {"shape": (160, 256, 256), "patch": 128, "start": (17, 53, 91)},
               "quick": {"shape": (64, 96, 96), "patch": 48, "start": (7, 13, 19)},
               "tiny": {"shape": (9, 9, 9), "patch": 4, "start": (1, 2, 3)}},
        targets={"v2": 5, "v1": 0.8, "naive": 1}, agree={"": equal()},
        work=lambda p: Work(bytes=2 * 8 * float(p["patch"] ** 3)),
        note="v1 reads its unpacked npy as we do",
    ),
)  # fmt: skip
