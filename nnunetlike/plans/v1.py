"""Plans and fingerprints in the dictionaries of nnU-Net v1; no other module knows their keys."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import load_pickle, save_pickle_with_twin, to_plain
from nnunetlike.data.orientation import is_orientation
from nnunetlike.data.video import VideoFacts
from nnunetlike.plans.fingerprint import ChannelIntensities, Fingerprint, IntensityStatistics
from nnunetlike.plans.plans import Plans, StagePlan, VideoPlan
from nnunetlike.plans.topology import Topology

_FIXED_NONE = ("keep_only_largest_region", "min_region_size_per_class", "min_size_per_class")
_KNOWN = {
    "num_stages", "num_modalities", "modalities", "normalization_schemes", "dataset_properties",
    "list_of_npz_files", "original_spacings", "original_sizes", "preprocessed_data_folder",
    "num_classes", "all_classes", "base_num_features", "use_mask_for_norm", *_FIXED_NONE,
    "transpose_forward", "transpose_backward", "data_identifier", "plans_per_stage",
    "preprocessor_name", "conv_per_stage", "orientation",
}  # fmt: skip


def save_plans(plans: Plans, path: Path) -> None:
    """Write plans as v1's pickle and a JSON twin."""
    save_pickle_with_twin(plans_to_v1(plans), path)


def load_plans(path: Path) -> Plans:
    """Return the plans of a pickle written by v1 or by us.

    Raises:
        DataError: the file is missing, is not a plain pickle, or lacks an entry.
    """
    content = load_pickle(path)
    try:
        return plans_from_v1(content)
    except KeyError as error:
        raise DataError(f"{path} lacks the entry {error}; is it a plans file of nnU-Net?") from None


def plans_to_v1(plans: Plans) -> dict[str, Any]:
    """Return v1's plans dictionary, in v1's key order, made of plain Python types."""
    content: dict[str, Any] = {
        "num_stages": len(plans.stages),
        "num_modalities": plans.num_channels,
        "modalities": dict(plans.modalities),
        "normalization_schemes": OrderedDict(plans.normalization_schemes),
        "dataset_properties": fingerprint_to_v1(plans.fingerprint),
        "list_of_npz_files": list(plans.case_files),
        "original_spacings": [list(spacing) for spacing in plans.fingerprint.spacings],
        "original_sizes": list(plans.fingerprint.sizes),
        "preprocessed_data_folder": plans.preprocessed_folder,
        "num_classes": len(plans.classes),
        "all_classes": list(plans.classes),
        "base_num_features": plans.base_features,
        "use_mask_for_norm": OrderedDict(plans.use_mask_for_norm),
        **dict.fromkeys(_FIXED_NONE),
        "transpose_forward": list(plans.transpose_forward),
        "transpose_backward": list(plans.transpose_backward),
        "data_identifier": plans.data_identifier,
        "plans_per_stage": {i: _stage_to_v1(stage) for i, stage in plans.stages.items()},
        "preprocessor_name": plans.preprocessor_name,
    }
    if plans.preprocessor_name != "PreprocessorFor2D":
        content["conv_per_stage"] = plans.conv_per_stage
    if plans.orientation is not None:  # an entry of our own, which v1 does not look at
        content["orientation"] = plans.orientation
    plain: dict[str, Any] = to_plain({**content, **plans.extra})
    return plain


def plans_from_v1(content: Mapping[str, Any]) -> Plans:
    """Return plans from v1's dictionary; entries that old versions lack get v1's defaults.

    Raises:
        KeyError: an entry that every version wrote is missing.
        DataError: the orientation is none.
    """
    dimension = len(next(iter(content["plans_per_stage"].values()))["patch_size"])
    default_name = "PreprocessorFor2D" if dimension == 2 else "GenericPreprocessor"
    return Plans(
        modalities={int(k): str(v) for k, v in content["modalities"].items()},
        normalization_schemes={int(k): v for k, v in content["normalization_schemes"].items()},
        use_mask_for_norm={int(k): bool(v) for k, v in content["use_mask_for_norm"].items()},
        classes=tuple(int(c) for c in content["all_classes"]),
        base_features=int(content["base_num_features"]),
        conv_per_stage=int(content.get("conv_per_stage", 2)),
        transpose_forward=_three(content.get("transpose_forward") or (0, 1, 2)),
        transpose_backward=_three(content.get("transpose_backward") or (0, 1, 2)),
        data_identifier=str(content["data_identifier"]),
        stages={int(i): _stage_from_v1(s) for i, s in sorted(content["plans_per_stage"].items())},
        preprocessor_name=content.get("preprocessor_name") or default_name,
        fingerprint=fingerprint_from_v1(content["dataset_properties"]),
        case_files=tuple(str(p) for p in content.get("list_of_npz_files", ())),
        preprocessed_folder=str(content.get("preprocessed_data_folder", "")),
        orientation=_orientation(content.get("orientation")),
        extra={k: v for k, v in content.items() if k not in _KNOWN},
    )


def _orientation(value: Any) -> str | None:
    if value is not None and not is_orientation(value):
        raise DataError(
            f"the plans hold the orientation {value!r}; it takes three letters, such as 'LPS'. "
            "Plan the task again, or take the entry out"
        )
    return None if value is None else str(value)


def fingerprint_to_v1(fingerprint: Fingerprint) -> dict[str, Any]:
    """Return v1's dataset_properties."""
    return {
        "all_sizes": list(fingerprint.sizes),
        "all_spacings": [list(spacing) for spacing in fingerprint.spacings],
        "all_classes": list(fingerprint.classes),
        "modalities": dict(fingerprint.modalities),
        "intensityproperties": intensities_to_v1(fingerprint.intensities),
        "size_reductions": OrderedDict(fingerprint.size_reductions),
        **_videos_to_plain(fingerprint),
    }


def _videos_to_plain(fingerprint: Fingerprint) -> dict[str, Any]:
    """Return entries of our own, which data sets without videos do not have."""
    if fingerprint.videos is None:
        return {}
    return {
        "videos": [video.to_plain() for video in fingerprint.videos],
        "supervision": fingerprint.supervision,
    }


def fingerprint_from_v1(content: Mapping[str, Any]) -> Fingerprint:
    """Return the fingerprint of v1's dataset_properties."""
    return Fingerprint(
        sizes=tuple(tuple(int(v) for v in size) for size in content["all_sizes"]),
        spacings=tuple(tuple(float(v) for v in s) for s in content["all_spacings"]),
        classes=tuple(int(c) for c in content["all_classes"]),
        modalities={int(k): str(v) for k, v in content["modalities"].items()},
        intensities=intensities_from_v1(content.get("intensityproperties")),
        size_reductions={k: float(v) for k, v in content["size_reductions"].items()},
        videos=None
        if content.get("videos") is None
        else tuple(map(VideoFacts.from_plain, content["videos"])),
        supervision=content.get("supervision", "sparse"),
    )


def intensities_to_v1(
    intensities: Mapping[int, ChannelIntensities] | None,
) -> dict[int, dict[str, Any]] | None:
    """Return v1's intensityproperties."""
    if intensities is None:
        return None
    return OrderedDict(
        (
            channel,
            OrderedDict(
                local_props=OrderedDict(
                    (case, OrderedDict(asdict(local))) for case, local in found.by_case.items()
                ),
                **asdict(found.overall),
            ),
        )
        for channel, found in intensities.items()
    )


def intensities_from_v1(
    content: Mapping[int, Mapping[str, Any]] | None,
) -> dict[int, ChannelIntensities] | None:
    """Return the intensity statistics of v1's intensityproperties."""
    if content is None:
        return None
    return {
        int(channel): ChannelIntensities(
            overall=_statistics(found),
            by_case={case: _statistics(local) for case, local in found["local_props"].items()},
        )
        for channel, found in content.items()
    }


def _statistics(content: Mapping[str, Any]) -> IntensityStatistics:
    names = IntensityStatistics.__dataclass_fields__
    return IntensityStatistics(**{name: float(content[name]) for name in names})


def _stage_to_v1(stage: StagePlan) -> dict[str, Any]:
    dummy = {"do_dummy_2D_data_aug": stage.dummy_2d_augmentation}
    flat = stage.dimension == 2  # v1 writes the entry last in 2D
    return {
        "batch_size": stage.batch_size,
        "num_pool_per_axis": list(stage.num_pool_per_axis),
        "patch_size": list(stage.patch_size),
        "median_patient_size_in_voxels": list(stage.median_shape),
        "current_spacing": list(stage.spacing),
        "original_spacing": list(stage.original_spacing),
        **({} if flat else dummy),
        "pool_op_kernel_sizes": [list(size) for size in stage.topology.pool_op_kernel_sizes],
        "conv_kernel_sizes": [list(size) for size in stage.topology.conv_kernel_sizes],
        **(dummy if flat else {}),
        **({} if stage.video is None else {"video": asdict(stage.video)}),
    }


def _stage_from_v1(content: Mapping[str, Any]) -> StagePlan:
    pools_per_axis = tuple(int(v) for v in content["num_pool_per_axis"])
    pools = content.get("pool_op_kernel_sizes")
    kernels = content.get("conv_kernel_sizes")
    if pools is None:
        pools = _late_pools(pools_per_axis)
    if kernels is None:
        kernels = [[3] * len(pools_per_axis)] * (len(pools) + 1)
    return StagePlan(
        spacing=tuple(float(v) for v in content["current_spacing"]),
        original_spacing=tuple(float(v) for v in content["original_spacing"]),
        median_shape=tuple(int(v) for v in content["median_patient_size_in_voxels"]),
        patch_size=tuple(int(v) for v in content["patch_size"]),
        batch_size=int(content["batch_size"]),
        dummy_2d_augmentation=bool(content["do_dummy_2D_data_aug"]),
        topology=Topology.of(pools, kernels),
        num_pool_per_axis=pools_per_axis,
        video=VideoPlan(**content["video"]) if content.get("video") else None,
    )


def _late_pools(pools_per_axis: Sequence[int]) -> list[list[int]]:
    """Return strides when axes with fewer pools start later (plans of early versions)."""
    total = max(pools_per_axis)
    return [[2 if i >= total - n else 1 for n in pools_per_axis] for i in range(total)]


def _three(values: Sequence[int]) -> tuple[int, int, int]:
    a, b, c = (int(v) for v in np.asarray(values))
    return a, b, c
