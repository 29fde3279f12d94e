"""Ours: public functions of nnunetlike, one thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides import ours_models
from benchmarks.sides.inputs import Call, read

DISTRIBUTIONS = ("nnunetlike", "torch", "numpy", "scipy", "numba", "simpleitk")


def limits() -> dict[str, float]:
    """What one thread of this machine can do."""
    import torch

    from benchmarks import machine

    torch.set_num_threads(1)
    return machine.limits()


def resample_image(folder: Path) -> Call:
    """Cubic splines along all axes."""
    from nnunetlike.preprocessing.resampling import resample_image

    params, image = read(folder, "image")
    return lambda: resample_image(image, params["new"])


def resample_separate(folder: Path) -> Call:
    """Cubic splines in the slices, nearest neighbour across them."""
    from nnunetlike.preprocessing.resampling import resample_image

    params, image = read(folder, "image")
    return lambda: resample_image(image, params["new"], axis=0)


def resample_label(folder: Path) -> Call:
    """Linear interpolation of the masks."""
    from nnunetlike.preprocessing.label_resampling import resample_label

    params, label = read(folder, "label")
    return lambda: resample_label(label, params["new"])


def export(folder: Path) -> Call:
    """Probabilities to a label map on another grid."""
    from nnunetlike.preprocessing.label_export import resampled_argmax

    params, values = read(folder, "values")
    return lambda: resampled_argmax(values, params["new"])


def crop(folder: Path) -> Call:
    """Box around what is not zero, holes filled."""
    from nnunetlike.preprocessing.cropping import crop_to_nonzero

    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        found = crop_to_nonzero(image, label)
        return {"image": found.image, "label": found.label, "box": found.box}

    return call


def fingerprint(folder: Path) -> Call:
    """Statistics of the foreground of one channel."""
    from nnunetlike.preprocessing.intensities import (
        foreground_sample,
        intensity_statistics,
    )

    _, image, label = read(folder, "image", "label")

    def call() -> Mapping[str, Any]:
        found = intensity_statistics(foreground_sample(image[0], label))
        names = ("median", "mean", "mn", "mx", "percentile_99_5", "percentile_00_5")
        return {name: getattr(found, name) for name in names}

    return call


def class_locations(folder: Path) -> Call:
    """Voxels of every class, drawn by v1's random numbers."""
    from nnunetlike.preprocessing.class_locations import sample_class_locations

    params, label = read(folder, "label")
    classes = range(1, params["labels"] + 1)
    return lambda: {str(k): v for k, v in sample_class_locations(label, classes).items()}


def dice(folder: Path) -> Call:
    """Dice of every label."""
    return _scores(folder, "Dice", lambda params: range(1, params["labels"] + 1))


def hd95(folder: Path) -> Call:
    """HD95 of one label, in mm."""
    return _scores(folder, "Hausdorff Distance 95", lambda _: [1])


def _scores(folder: Path, metric: str, labels_of: Callable[[Any], Any]) -> Call:
    from nnunetlike.evaluation.confusion import confusion
    from nnunetlike.evaluation.evaluator import score_case  # noqa: F401 - registers all
    from nnunetlike.evaluation.metrics import METRICS, Comparison

    params, reference, prediction = read(folder, "reference", "prediction")
    labels, spacing = list(labels_of(params)), (1.0, 1.0, 1.0)
    measure = METRICS.get(metric).measure

    def call() -> Mapping[str, Any]:
        matrix = confusion(reference, prediction, labels)
        return {
            str(label): measure(
                Comparison(matrix.counts([label]), (label,), prediction, reference, spacing)
            )
            for label in labels
        }

    return call


def read_image(folder: Path) -> Call:
    """Voxels of a .nii.gz as float32."""
    from nnunetlike.data.imageio import format_of

    path = folder / "image.nii.gz"
    return lambda: format_of(path).read([path])[0]


def write_label(folder: Path) -> Call:
    """A label map as .nii.gz, on the grid of its image."""
    from nnunetlike.data.imageio import format_of

    like, out = folder / "image.nii.gz", folder / "written_by_us.nii.gz"
    (label,) = read(folder, "label")[1:]
    kind = format_of(out)
    _, geometry = kind.read([like])

    def call() -> Mapping[str, Any]:
        kind.write_label(label, geometry, out, like=like)
        return {}

    return call


def patch(folder: Path) -> Call:
    """A patch of 128 voxels per side, image and label, of a stored case."""
    from nnunetlike.data.store import CaseStore

    params = read(folder)[0]
    store = CaseStore(folder / "ours")
    store.unpack("case")
    window = tuple(slice(a, a + params["patch"]) for a in params["start"])

    def call() -> Mapping[str, Any]:
        data = store.load("case")
        found = np.array(data[(slice(None), *window)])
        return {"image": found[:-1], "label": found[-1].astype(np.int16)}

    return call


def spatial(folder: Path) -> Call:
    """A patch turned and scaled, image cubic, label linear."""
    from nnunetlike.training.augmentation.spatial import Affine, Scratch, resample

    params, image, label = read(folder, "image", "label")
    affine, scratch = Affine(tuple(params["angles"]), params["scale"]), Scratch()

    def call() -> Mapping[str, Any]:
        found, wanted = resample(image, label, affine, tuple(params["patch"]), scratch=scratch)
        return {"image": found, "label": np.maximum(wanted, 0)}

    return call


def augment(folder: Path) -> Call:
    """Every change at once: spatial, noise, blur, brightness, contrast, low resolution, gammas."""
    from nnunetlike.training.augmentation import policies
    from nnunetlike.training.augmentation.spatial import Scratch, resample

    params, image, label = read(folder, "image", "label")
    patch, scratch = tuple(params["patch"]), Scratch()
    limits = ((-0.5236, 0.5236),) * 3
    always = {
        name: 1.0
        for name in policies.AugmentationPolicy.__dataclass_fields__
        if name.endswith("probability") and name != "mirror_probability"
    }
    policy = policies.AugmentationPolicy(angles=limits, mirror_axes=(0, 1, 2), **always)
    rng = np.random.default_rng(0)

    def call() -> Mapping[str, Any]:
        changes = policies.draw(policy, len(image), rng)
        assert changes.affine is not None
        found, wanted = resample(image, label, changes.affine, patch, scratch=scratch)
        found = policies.change_intensities(found, changes, rng, in_place=True)
        found, wanted = policies.finish(found, wanted, changes, {})
        return {"image": found, "label": wanted}

    return call


STAGES: Mapping[str, Callable[[Path], Call]] = {
    "resample_image": resample_image,
    "resample_separate": resample_separate,
    "resample_label_3": resample_label,
    "resample_label_98": resample_label,
    "export_3": export,
    "export_25": export,
    "export_117": export,
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
    "augment_3": augment,
    "augment_24": augment,
    **ours_models.STAGES,
}
