"""Stages on arrays in memory: resampling, export, cropping, statistics, metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.stages import Agreement, Arrays, Params, Stage, Work, about, equal, within_range
from benchmarks.stages import synthetic as made

RANGE = within_range(1e-6)
SAME = equal()


def save(folder: Path, **arrays: np.ndarray) -> None:
    """Write arrays as `NAME.npy`."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)


def _image(
    folder: Path, rng: np.random.Generator, *, shape: Sequence[int], new: Sequence[int]
) -> None:
    save(folder, image=made.image(rng, shape))


def _label(
    folder: Path, rng: np.random.Generator, *, shape: Sequence[int], new: Sequence[int], labels: int
) -> None:
    save(folder, label=made.labels(rng, shape, labels, background=labels < 90).astype(np.int16))


def _probabilities(
    folder: Path,
    rng: np.random.Generator,
    *,
    shape: Sequence[int],
    new: Sequence[int],
    classes: int,
) -> None:
    many = classes > 64
    save(folder, values=(made.fields if many else made.probabilities)(rng, shape, classes))


def _brain(folder: Path, rng: np.random.Generator, *, shape: Sequence[int]) -> None:
    image = made.head(rng, shape)
    save(folder, image=image, label=made.labels(rng, shape, 3).astype(np.int16) * (image[0] > 0))


def _ct(folder: Path, rng: np.random.Generator, *, shape: Sequence[int], labels: int = 3) -> None:
    image = np.round(made.image(rng, shape)) + 0.5
    save(folder, image=image, label=made.labels(rng, shape, labels).astype(np.int16))


def _pair(folder: Path, rng: np.random.Generator, *, shape: Sequence[int], labels: int) -> None:
    reference = made.labels(rng, shape, labels)
    save(folder, reference=reference, prediction=made.shifted(reference))


def _resampled(bytes_each: int) -> object:
    def work(params: Params) -> Work:
        voxels = math.prod(params["shape"]) + math.prod(params["new"])
        return Work(bytes=bytes_each * voxels)

    return work


def _exported(params: Params) -> Work:
    read = 4 * params["classes"] * math.prod(params["shape"])
    return Work(bytes=read + math.prod(params["new"]))


def _read_once(bytes_each: int) -> object:
    return lambda params: Work(bytes=bytes_each * math.prod(params["shape"]))


IMAGE = {
    "full": {"shape": (100, 256, 256), "new": (125, 200, 200)},
    "quick": {"shape": (40, 80, 80), "new": (50, 64, 64)},
    "tiny": {"shape": (9, 10, 11), "new": (12, 13, 8)},
}
SEPARATE = {
    "full": {"shape": (24, 320, 320), "new": (40, 410, 410)},
    "quick": {"shape": (12, 120, 120), "new": (20, 150, 150)},
    "tiny": {"shape": (4, 12, 12), "new": (7, 15, 15)},
}


def _labels_sizes(full: int) -> dict[str, Params]:
    return {
        "full": {"shape": (60, 160, 160), "new": (120, 128, 128), "labels": full},
        "quick": {"shape": (20, 40, 40), "new": (40, 32, 32), "labels": full},
        "tiny": {"shape": (8, 10, 9), "new": (12, 9, 11), "labels": 3},
    }


def _export_sizes(classes: int) -> dict[str, Params]:
    return {
        "full": {"shape": (100, 140, 140), "new": (150, 256, 256), "classes": classes},
        "quick": {"shape": (20, 40, 40), "new": (30, 72, 72), "classes": classes},
        "tiny": {"shape": (6, 9, 8), "new": (9, 12, 13), "classes": 3},
    }


CROP = {
    "full": {"shape": (160, 320, 320)},
    "quick": {"shape": (60, 120, 120)},
    "tiny": {"shape": (10, 12, 12)},
}
MANY = {
    "full": {"shape": (200, 384, 384), "labels": 24},
    "quick": {"shape": (60, 120, 120), "labels": 24},
    "tiny": {"shape": (12, 12, 12), "labels": 3},
}
METRIC = {
    "full": {"shape": (200, 320, 320), "labels": 24},
    "quick": {"shape": (50, 96, 96), "labels": 24},
    "tiny": {"shape": (12, 16, 16), "labels": 2},
}


def _statistics(ours: Arrays, theirs: Arrays) -> Agreement:
    """Compare statistics of samples: as a share of what lies between the percentiles."""
    extent = float(theirs["percentile_99_5"] - theirs["percentile_00_5"]) or 1.0
    names = ("median", "mean", "percentile_99_5", "percentile_00_5")
    worst = max(abs(float(ours[name] - theirs[name])) for name in names) / extent
    return Agreement(worst < 0.02, f"samples: {worst:.0e} between percentiles")


V2_RULE = equal(1e-3)
"""batchgenerators from 0.25.4 on, and so nnU-Net v2, gives a voxel its heaviest label, however
light; v1 and we that with half of the weight. They differ in some of the mixed voxels."""

STAGES = (
    Stage(
        name="resample_image", title="image, order 3, 100x256x256 to 125x200x200",
        make=_image, sizes=IMAGE, targets={"v1": 60, "v2": 60, "naive": 1},
        agree={"": RANGE}, work=_resampled(4),
    ),
    Stage(
        name="resample_separate", title="image, slices apart, 24x320x320 to 40x410x410",
        make=_image, sizes=SEPARATE, targets={"v1": 20, "v2": 20, "naive": 1},
        agree={"": RANGE}, work=_resampled(4),
    ),
    Stage(
        name="resample_label_3", title="label, 3 labels, 60x160x160 to 120x128x128",
        make=_label, sizes=_labels_sizes(3), targets={"v1": 30, "v2": 30, "naive": 1},
        agree={"": SAME, "v2": V2_RULE}, work=_resampled(2),
    ),
    Stage(
        name="resample_label_98", title="label, 98 labels, 60x160x160 to 120x128x128",
        make=_label, sizes=_labels_sizes(98), targets={"v1": 400, "v2": 400, "naive": 1},
        agree={"": SAME, "v2": equal(1e-2)}, work=_resampled(2),
    ),
    Stage(
        name="export_3", title="export, 3 classes, 100x140x140 to 150x256x256",
        make=_probabilities, sizes=_export_sizes(3), targets={"v1": 60, "v2": 60, "naive": 1},
        agree={"": equal(1e-5)}, work=_exported, room=0.25 * 2**30,
    ),
    Stage(
        name="export_25", title="export, 25 classes, 100x140x140 to 150x256x256",
        make=_probabilities, sizes=_export_sizes(25), targets={"v1": 60, "v2": 60, "naive": 1},
        agree={"": equal(1e-5)}, work=_exported, room=0.25 * 2**30,
    ),
    Stage(
        name="export_117", title="export, 117 classes, 200x280x280 to 300x512x512",
        make=_probabilities,
        sizes={
            "full": {"shape": (200, 280, 280), "new": (300, 512, 512), "classes": 117},
            "tiny": {"shape": (6, 9, 8), "new": (9, 12, 13), "classes": 66},
        },
        targets={}, agree={}, work=_exported, room=0.25 * 2**30, once=False, default=False,
        measures="memory", note="memory of ours alone: the peers would need more than 30 GB",
    ),
    Stage(
        name="crop_brain", title="crop and fill, brain 160x320x320",
        make=_brain, sizes=CROP, targets={"v1": 15, "v2": 15, "naive": 1},
        agree={"": SAME}, work=_read_once(6),
    ),
    Stage(
        name="crop_ct", title="crop and fill, CT 160x320x320",
        make=_ct, sizes=CROP, targets={"v1": 3, "v2": 3, "naive": 1},
        agree={"": SAME}, work=_read_once(6),
    ),
    Stage(
        name="fingerprint", title="foreground intensities, 200x384x384",
        make=_ct, sizes=MANY, targets={"v1": 10, "v2": 10, "naive": 1},
        agree={"": about(1e-5), "v2": _statistics}, work=_read_once(6),
        note="v2 looks at all foreground voxels, v1 and we at every tenth",
    ),
    Stage(
        name="class_locations", title="class locations, 24 labels, 200x384x384",
        make=_ct, sizes=MANY, targets={"v1": 10, "v2": 10, "naive": 1},
        agree={"": SAME}, work=_read_once(2),
        note="v1: its loop, typed off, for it cannot be called alone",
    ),
    Stage(
        name="dice_24", title="Dice, 24 labels, 200x320x320",
        make=_pair, sizes=METRIC, targets={"v1": 50, "v2": 50, "naive": 1},
        agree={"": about(1e-12)}, work=_read_once(2),
    ),
    Stage(
        name="hd95", title="HD95, one organ, 200x320x320",
        make=_pair, sizes=METRIC, targets={"v1": 30, "monai": 1.5, "naive": 1},
        agree={"": about(1e-6), "monai": about(0.1)}, work=_read_once(2),
        note="MONAI takes the larger of two percentiles, medpy and we the one of both distances",
    ),
)  # fmt: skip
