"""All that a runtime without this package must know of a model, in plain types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nnunetlike import __version__
from nnunetlike.inference.export import ExportSettings
from nnunetlike.inference.model_bundle import ModelBundle
from nnunetlike.plans.fingerprint import IntensityStatistics
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.normalization import EPSILON
from nnunetlike.preprocessing.preprocessor import KEEPS_THROUGH_PLANE
from nnunetlike.preprocessing.resampling import ANISOTROPY

FORMAT_VERSION = 1
AXES = {2: ("height", "width"), 3: ("depth", "height", "width")}


def describe_model(
    bundle: ModelBundle, labels: Sequence[str] | None, *, channels: int
) -> dict[str, Any]:
    """Return a description of a model, for JSON.

    Args:
        bundle: the model.
        labels: names of the outputs, background first, if known.
        channels: inputs of the network; those beyond the image's are what the low resolution of a
            cascade has found.
    """
    plans, stage = bundle.plans, bundle.plans.stages[bundle.stage]
    axes, patch = AXES[stage.dimension], list(stage.patch_size)
    values = plans.regions or (0, *plans.classes)
    names = labels if labels and len(labels) == len(values) else _numbered(values)
    return {
        "format_version": FORMAT_VERSION,
        "made_by": f"nnunetlike {__version__}",
        "model": str(bundle.folder.name),
        "input": {
            "name": "image",
            "axes": ["batch", "channel", *axes],
            "shape": ["any", channels, *patch],
            "type": "float32",
        },
        "output": {
            "name": "logits",
            "axes": ["batch", "label", *axes],
            "shape": ["any", plans.num_classes, *patch],
            "type": "float32",
        },
        "labels": [
            {"index": index, "value": value, "name": name}
            for index, (value, name) in enumerate(zip(values, names, strict=True))
        ],
        "preprocessing": _preprocessing(plans, bundle.stage, channels),
        "prediction": _prediction(bundle, patch),
        "back_to_the_image": _back(plans),
    }


def _numbered(values: Sequence[int]) -> list[str]:
    return ["background" if value == 0 else str(value) for value in values]


def _preprocessing(plans: Plans, stage: int, channels: int) -> dict[str, Any]:
    spacing: list[float | None] = [float(value) for value in plans.stages[stage].spacing]
    if KEEPS_THROUGH_PLANE[plans.preprocessor_name]:
        spacing[0] = None
    known = plans.fingerprint.intensities or {}
    last = ["normalise", "resample"] if plans.conventions == "v2" else ["resample", "normalise"]
    found: dict[str, Any] = {
        "image_axes": "depth, height, width as SimpleITK.GetArrayFromImage gives them (z, y, x)",
        "orientation": plans.orientation,
        "orientation_note": "where the axes x, y, z of the training images' files point (LPS is "
        "the direction 1 0 0 0 1 0 0 0 1); `turn` permutes and flips the axes of others to the "
        "nearest; null takes all as stored",
        "steps": [
            *([] if plans.orientation is None else ["turn"]),
            "crop",
            "transpose",
            *last,
        ],
        "crop": "to the box of the voxels that are not 0 in some channel",
        "transpose_forward": list(plans.transpose_forward),
        "spacing_mm": spacing,
        "spacing_note": "after the transposition; null keeps the spacing of the case",
        "resampling": {
            "order": 3,
            "anisotropy": ANISOTROPY,
            "order_along_the_coarse_axis": 0,
            "note": "an axis more than `anisotropy` times as coarse as the finest is resampled by "
            "itself",
        },
        "channels": [
            {
                "index": index,
                "name": name,
                "normalisation": _normalisation(
                    plans.normalization_schemes[number],
                    known[number].overall if number in known else None,
                    masked=plans.use_mask_for_norm.get(number, False),
                ),
            }
            for index, (number, name) in enumerate(sorted(plans.modalities.items()))
        ],
    }
    if channels > len(plans.modalities):
        found["further_channels"] = (
            "one per label above 0, in the order of `labels`: 1 where the low resolution has found "
            "it, else 0"
        )
    return found


def _normalisation(
    scheme: str, known: IntensityStatistics | None, *, masked: bool
) -> Mapping[str, Any]:
    found: dict[str, Any] = {"scheme": scheme}
    if scheme in ("CT", "CT2") and known is not None:
        found["clip"] = [known.percentile_00_5, known.percentile_99_5]
    if scheme == "CT" and known is not None:
        found.update(subtract=known.mean, divide_by=known.sd)
    elif scheme == "CT2":
        found.update(of="voxels strictly between the limits of `clip`", subtract="mean",
                     divide_by="standard deviation")  # fmt: skip
    elif scheme == "to01":
        found.update(subtract="minimum", divide_by="maximum after that")
    elif scheme == "rgbTo01":
        found.update(subtract=0, divide_by=255)
    elif scheme != "noNorm":
        found.update(
            of="voxels that are not background" if masked else "all voxels",
            subtract="mean", divide_by=f"standard deviation + {EPSILON:g}",
        )  # fmt: skip
    if masked and scheme not in ("noNorm", "to01", "rgbTo01"):
        found["outside"] = (
            "0 where all channels are 0 outside the body (holes of the body count as inside)"
        )
    return found


def _prediction(bundle: ModelBundle, patch: Sequence[int]) -> dict[str, Any]:
    to_probabilities = (
        "softmax over labels" if bundle.plans.regions is None else "the logistic function"
    )
    mean = f"{to_probabilities}, then the mean over mirrored views, windows and folds"
    if bundle.plans.conventions == "v2":
        mean = f"the mean of logits over mirrored views, windows and folds, then {to_probabilities}"
    return {
        "patch_size": list(patch),
        "step_size": 0.5,
        "step_note": "windows are at most step_size * patch apart; smaller images are padded by 0",
        "window_weights": {
            "kind": "gaussian",
            "centre": [size // 2 for size in patch],
            "sigma": [size / 8 for size in patch],
        },
        "mirror_axes": list(bundle.mirrored),
        "mirror_note": "axes of the patch; the mean is taken over all their subsets",
        "combine": mean,
    }


def _back(plans: Plans) -> dict[str, Any]:
    settings = ExportSettings.of(plans)
    return {
        "transpose_backward": list(settings.transpose_backward),
        "resampling": {
            "what": "logits" if settings.logits else "probabilities",
            "order": settings.order,
            "order_along_the_coarse_axis": settings.order_z,
        },
        "label": "of the largest value, the first among equals; 0 outside the box of the crop"
        if settings.regions is None
        else "of the last output whose probability is above 1/2, else 0; outputs are regions",
        "turn": None if plans.orientation is None else "back, last, to the axes of the image",
    }
