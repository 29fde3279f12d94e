"""The plain way: a line or two of SciPy, scikit-image or NumPy, in our own environment."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import ours_models
from benchmarks.sides.inputs import Call, read

DISTRIBUTIONS = ("numpy", "scipy", "scikit-image", "nibabel")


def _zoom(values: Any, shape: Any, order: int) -> Any:
    """Resize as scikit-image does: edges repeated outwards, clipped to the range."""
    from scipy import ndimage

    factors = [new / old for old, new in zip(values.shape, shape, strict=True)]
    found = ndimage.zoom(
        values.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True
    )
    return np.clip(found, values.min(), values.max())


def resample_image(folder: Path) -> Call:
    """SciPy's zoom."""
    params, image = read(folder, "image")
    return lambda: _zoom(image[0], params["new"], 3)[None].astype(np.float32)


def resample_separate(folder: Path) -> Call:
    """Every slice by itself, then the nearest slices."""
    params, image = read(folder, "image")
    depth, *plane = params["new"]

    def call() -> Any:
        slices = np.stack([_zoom(one, plane, 3) for one in image[0]])
        nearest = np.floor((np.arange(depth) + 0.5) * len(slices) / depth).astype(int)
        return slices[nearest][None].astype(np.float32)

    return call


def resample_label(folder: Path) -> Call:
    """The mask of every label, one after another."""
    params, label = read(folder, "label")

    def call() -> Any:
        out = np.zeros(params["new"], label.dtype)
        for value in np.unique(label):
            out[_zoom((label == value).astype(float), params["new"], 1) >= 0.5] = value
        return out

    return call


def export(folder: Path) -> Call:
    """All classes at full resolution, then the largest."""
    params, values = read(folder, "values")
    return lambda: np.stack([_zoom(one, params["new"], 1) for one in values]).argmax(0)


def crop(folder: Path) -> Call:
    """Fill the holes of the whole mask, then its box."""
    from scipy import ndimage

    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        mask = ndimage.binary_fill_holes((image != 0).any(0))
        box = [(int(axis.min()), int(axis.max()) + 1) for axis in np.where(mask)]
        window = tuple(slice(*span) for span in box)
        inside = label[window].copy()
        inside[(inside == 0) & ~mask[window]] = -1
        return {"image": image[(slice(None), *window)].copy(), "label": inside, "box": box}

    return call


def fingerprint(folder: Path) -> Call:
    """Every tenth foreground voxel as a list, as nnU-Net v1 has it."""
    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        found = list(image[0][label > 0][::10])
        return {
            "median": np.median(found), "mean": np.mean(found), "mn": np.min(found),
            "mx": np.max(found), "percentile_99_5": np.percentile(found, 99.5),
            "percentile_00_5": np.percentile(found, 0.5),
        }  # fmt: skip

    return call


def class_locations(folder: Path) -> Call:
    """The coordinates of every voxel of every class, and a choice of them."""
    params, label = read(folder, "label")

    def call() -> Mapping[str, Any]:
        random, found = np.random.RandomState(1234), {}
        for value in range(1, params["labels"] + 1):
            every = np.argwhere(label == value)
            count = max(min(10000, len(every)), int(np.ceil(0.01 * len(every))))
            found[str(value)] = (
                every[random.choice(len(every), count, replace=False)] if len(every) else every
            )
        return found

    return call


def dice(folder: Path) -> Call:
    """Two masks per label."""
    params, reference, prediction = read(folder, "reference", "prediction")

    def call() -> Mapping[str, Any]:
        found = {}
        for value in range(1, params["labels"] + 1):
            a, b = reference == value, prediction == value
            found[str(value)] = 2 * np.sum(a & b) / (np.sum(a) + np.sum(b))
        return found

    return call


def hd95(folder: Path) -> Call:
    """Distances over the whole volume."""
    from scipy import ndimage

    _, reference, prediction = read(folder, "reference", "prediction")

    def call() -> Mapping[str, Any]:
        edges = []
        for mask in (prediction == 1, reference == 1):
            edges.append(mask & ~ndimage.binary_erosion(mask))
        far = [ndimage.distance_transform_edt(~edge) for edge in edges]
        pooled = np.concatenate([far[1][edges[0]], far[0][edges[1]]])
        return {"1": np.percentile(pooled, 95)}

    return call


def read_image(folder: Path) -> Call:
    """Nibabel."""
    import nibabel

    path = folder / "image.nii.gz"

    def call() -> Any:
        loaded: Any = nibabel.load(path)
        return np.ascontiguousarray(np.asarray(loaded.dataobj).T, np.float32)[None]

    return call


def write_label(folder: Path) -> Call:
    """Nibabel's bytes, packed by gzip."""
    import nibabel

    (label,) = read(folder, "label")[1:]

    def call() -> Mapping[str, Any]:
        content = nibabel.Nifti1Image(label.T, np.eye(4)).to_bytes()
        (folder / "written_plainly.nii.gz").write_bytes(gzip.compress(content, compresslevel=6))
        return {}

    return call


def patch(folder: Path) -> Call:
    """The whole compressed case, of which the patch is cut."""
    params = read(folder)[0]
    packed = folder / "packed.npz"
    with np.load(folder / "ours" / "case.npz") as archive:
        np.savez_compressed(packed, data=archive["data"])
    window = (slice(None), *(slice(a, a + params["patch"]) for a in params["start"]))

    def call() -> Mapping[str, Any]:
        with np.load(packed) as archive:
            data = np.array(archive["data"][window])
        return {"image": data[:-1], "label": data[-1].astype(np.int16)}

    return call


def spatial(folder: Path) -> Call:
    """SciPy's map_coordinates, of the image and of the mask of every label."""
    from scipy import ndimage

    from nnunetlike.training.augmentation.spatial import Affine

    params, image, label = read(folder, "image", "label")
    matrix = Affine(tuple(params["angles"]), params["scale"]).matrix
    grid = np.stack(np.meshgrid(*map(np.arange, params["patch"]), indexing="ij")).astype(float)
    grid -= (np.array(params["patch"]).reshape(3, 1, 1, 1) - 1) / 2

    def call() -> Mapping[str, Any]:
        middle = (np.array(label.shape).reshape(3, 1, 1, 1) - 1) / 2
        where = np.tensordot(matrix, grid, 1) + middle
        found = ndimage.map_coordinates(image[0].astype(float), where, order=3)
        out = np.zeros(params["patch"], label.dtype)
        for value in np.unique(label):
            mask = (label == value).astype(float)
            out[ndimage.map_coordinates(mask, where, order=1) >= 0.5] = value
        return {"image": found[None].astype(np.float32), "label": out}

    return call


def tiles(folder: Path) -> Call:
    """Weighted windows, their weights counted voxel by voxel, and a division."""
    from nnunetlike.inference.windows import importance_map, window_starts

    params, image, logits = read(folder, "image", "logits")
    size, shape = params["patch"], image.shape[1:]
    weight = importance_map(tuple(size))
    starts = [window_starts(n, w, 0.5) for n, w in zip(shape, size, strict=True)]

    def call() -> Any:
        total = np.zeros((len(logits), *shape), np.float32)
        count = np.zeros_like(total)
        for z in starts[0]:
            for y in starts[1]:
                for x in starts[2]:
                    corner = zip((z, y, x), size, strict=True)
                    window = (slice(None), *(slice(a, a + n) for a, n in corner))
                    total[window] += logits * weight
                    count[window] += weight
        return total / count

    return call


STAGES: Mapping[str, Callable[[Path], Call]] = {
    "resample_image": resample_image,
    "resample_separate": resample_separate,
    "resample_label_3": resample_label,
    "resample_label_98": resample_label,
    "export_3": export,
    "export_25": export,
    "crop_brain": crop,
    "crop_ct": crop,
    "fingerprint": fingerprint,
    "class_locations": class_locations,
    "dice_24": dice,
    "hd95": hd95,
    "read_image": read_image,
    "write_label": write_label,
    "patch_128": patch,
    "spatial_3": spatial,
    "spatial_24": spatial,
    "tiles_3": tiles,
    "tiles_10": tiles,
    "step_bf16": ours_models.plain_step,
    "step_nodes": ours_models.plain_step,
    "step_nodes_bf16": ours_models.plain_step,
}
