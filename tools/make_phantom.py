"""Make a small Decathlon task of CT-like phantoms: a body, an organ, a lesion in it, a spine.

usage: python tools/make_phantom.py FOLDER [--cases 16] [--new_cases 2] [--size 64] [--seed 0]

FOLDER must be called TaskXX_Name. Besides the Decathlon layout it gets `labelsTs`, the truth for
the new cases. Everything is synthetic and seeded: the same arguments give the same voxels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import SimpleITK as sitk

LABELS = {"0": "background", "1": "organ", "2": "lesion"}


def main() -> None:
    """Write the task named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cases", type=int, default=16, help="training cases")
    parser.add_argument("--new_cases", type=int, default=2, help="cases in imagesTs")
    parser.add_argument("--size", type=int, default=64, help="in-plane voxels of the median case")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    make_task(args.folder, args.cases, args.new_cases, args.size, args.seed)
    print(f"wrote {args.cases} training and {args.new_cases} new cases to {args.folder}")


def make_task(folder: Path, cases: int, new_cases: int, size: int, seed: int) -> None:
    """Write a Decathlon task folder with `cases` training and `new_cases` test cases."""
    ids = [f"phantom_{i:03d}" for i in range(cases + new_cases)]
    for i, case_id in enumerate(ids):
        rng = np.random.default_rng([seed, i])
        spacing = (rng.uniform(2.5, 3.5), *[rng.uniform(0.9, 1.1)] * 2)
        image, label = make_case(rng, spacing, size)
        part = "Tr" if i < cases else "Ts"
        _write(image, spacing, folder / f"images{part}" / f"{case_id}.nii.gz")
        _write(label, spacing, folder / f"labels{part}" / f"{case_id}.nii.gz")
    (folder / "imagesTs").mkdir(parents=True, exist_ok=True)
    description = {
        "name": folder.name.partition("_")[2],
        "description": "synthetic CT-like phantom",
        "licence": "CC0",
        "tensorImageSize": "3D",
        "modality": {"0": "CT"},
        "labels": LABELS,
        "numTraining": cases,
        "numTest": new_cases,
        "training": [
            {"image": f"./imagesTr/{c}.nii.gz", "label": f"./labelsTr/{c}.nii.gz"}
            for c in ids[:cases]
        ],
        "test": [f"./imagesTs/{c}.nii.gz" for c in ids[cases:]],
    }
    (folder / "dataset.json").write_text(json.dumps(description, indent=2))


def make_case(
    rng: np.random.Generator, spacing: tuple[float, ...], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return an image in Hounsfield units (int16) and its label (uint8), both (D, H, W)."""
    extent = np.array([0.95, 1.0, 1.0]) * size * rng.uniform(0.9, 1.1, 3)
    shape = np.maximum(np.round(extent / np.asarray(spacing)), 8).astype(int)
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    body = _ellipsoid(grid, (0, 0, 0), (1.6, 0.82, 0.9))
    centre = np.array([0.0, -0.1, -0.3]) + rng.uniform(-0.12, 0.12, 3)
    organ = body & _ellipsoid(grid, centre, rng.uniform(0.42, 0.58, 3), wobble=rng.uniform(0, 6, 3))
    offset = rng.uniform(-0.16, 0.16, 3)
    lesion = organ & _ellipsoid(grid, centre + offset, rng.uniform(0.18, 0.28, 3))
    spine = body & _ellipsoid(grid, (0, 0.55, 0), (3.0, 0.16, 0.16))
    image = np.full(shape, -1000.0)
    image[body] = 30 + 20 * grid[2][body]
    image[organ] = rng.uniform(105, 125)
    image[lesion] = rng.uniform(50, 65)
    image[spine] = rng.uniform(500, 700)
    image = _smooth(image) + rng.normal(0, 15, shape)
    label = organ.astype(np.uint8) + lesion.astype(np.uint8)
    return np.round(image).astype(np.int16), label


def _ellipsoid(
    grid: list[np.ndarray],
    centre: object,
    radii: object,
    wobble: np.ndarray | None = None,
) -> np.ndarray:
    """Return the mask of an ellipsoid, its surface waved by three phases when `wobble` is given."""
    parts = [(g - c) / r for g, c, r in zip(grid, centre, radii, strict=True)]
    radius = np.sqrt(sum(p * p for p in parts))
    if wobble is None:
        return radius <= 1
    angles = [np.arctan2(parts[1], parts[2]), np.arctan2(parts[0], parts[1])]
    wave = np.sin(3 * angles[0] + wobble[0]) + np.sin(2 * angles[1] + wobble[1])
    return radius <= 1 + 0.08 * wave


def _smooth(image: np.ndarray) -> np.ndarray:
    """Return the image blurred in-plane by a small binomial kernel (partial volume)."""
    for axis in (1, 2):
        padded = np.pad(image, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        lower = np.take(padded, range(image.shape[axis]), axis)
        upper = np.take(padded, range(2, image.shape[axis] + 2), axis)
        image = (lower + 2 * image + upper) / 4
    return image


def _write(array: np.ndarray, spacing: tuple[float, ...], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(s) for s in spacing[::-1]])
    sitk.WriteImage(image, str(path), True)


if __name__ == "__main__":
    main()
