"""Plans of nnU-Net v2 (`plans.json`, `dataset.json`); no other module knows their keys.

Read are the plans of 2.0 to 2.8: configurations that inherit from one another, and networks given
by an `architecture` block or, before 2.4, by keys of the configuration itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import DataError, PlanError
from nnunetlike.core.serialization import load_json
from nnunetlike.plans.fingerprint import ChannelIntensities, Fingerprint, IntensityStatistics
from nnunetlike.plans.plans import Plans, StagePlan
from nnunetlike.plans.topology import Topology

SCHEMES = {
    "CTNormalization": "CT",
    "ZScoreNormalization": "nonCT",
    "NoNormalization": "noNorm",
    "RescaleTo01Normalization": "to01",
    "RGBTo01Normalization": "rgbTo01",
}
"""Our name of each normalisation of v2."""

SPLINES = "resample_data_or_seg_to_shape"
LINEAR = ("resample_torch_simple", "resample_torch_fornnunet")
ORIENTATIONS = {
    "SimpleITKIO": None,
    "NibabelIO": None,
    "Tiff3DIO": None,
    "NaturalImage2DIO": None,
    "NibabelIOWithReorient": "RAS",
    "SimpleITKIOWithReorient": "RAS",
}
"""What each reader of v2 turns images to before all else; None leaves them as stored."""


@dataclass(frozen=True, kw_only=True)
class V2Network:
    """A network as plans of v2 describe it; nothing of it is checked or built yet."""

    class_name: str
    """Last part of the name of the Python class, `PlainConvUNet`."""

    arguments: Mapping[str, Any]
    """Of the class, but for channels and classes; layers by name, `torch.nn.LeakyReLU`."""


@dataclass(frozen=True, kw_only=True)
class V2Model:
    """One configuration of a data set of v2."""

    plans: Plans
    """With one stage, number 0."""

    network: V2Network


def load_v2_plans(folder: Path, configuration: str) -> V2Model:
    """Return what the `plans.json` and `dataset.json` of a results folder of v2 say.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        configuration: `2d`, `3d_fullres`, `3d_lowres`, or another of the plans.

    Raises:
        DataError: a file is missing, damaged, or lacks an entry.
        PlanError: the model needs something that does not exist here; the message names it.
    """
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise DataError(
                f"{folder / name} is missing. A model of nnU-Net v2 consists of plans.json, "
                "dataset.json and its folders fold_*; copy all of them"
            )
    content, dataset = load_json(folder / "plans.json"), load_json(folder / "dataset.json")
    measured = folder / "dataset_fingerprint.json"
    facts = load_json(measured) if measured.is_file() else {}
    try:
        chosen = _configuration(content, configuration)
        _require_known(content, chosen, configuration)
        description = _network(chosen)
        plans = _plans(content, chosen, dataset, facts, description)
    except KeyError as error:
        raise DataError(
            f"{folder} is not a model of nnU-Net v2: plans.json or dataset.json lacks the entry "
            f"{error}"
        ) from None
    except (TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(
            f"{folder}: plans.json or dataset.json holds an entry of an unknown form ({error})"
        ) from None
    return V2Model(plans=plans, network=description)


def _configuration(
    content: Mapping[str, Any], name: str, heirs: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Return a configuration with all that it inherits."""
    known = content["configurations"]
    if name not in known:
        raise PlanError(f"plans.json has no configuration {name!r}; it has {', '.join(known)}")
    if name in heirs:
        raise PlanError(f"configurations inherit in a circle: {', '.join((*heirs, name))}")
    chosen = dict(known[name])
    parent = chosen.pop("inherits_from", None)
    if parent is None:
        return chosen
    return {**_configuration(content, parent, (*heirs, name)), **chosen}


def _require_known(
    content: Mapping[str, Any], chosen: Mapping[str, Any], configuration: str
) -> None:
    """Do nothing unless the model needs what does not exist here."""
    if chosen.get("previous_stage"):
        raise PlanError(
            f"{configuration} is the second stage of a cascade, which is not supported for models "
            f"of nnU-Net v2. Predict with {chosen['previous_stage']} or 3d_fullres"
        )
    if _reader(content) not in ORIENTATIONS:
        raise PlanError(
            f"the model's images were read by {_reader(content)!r}; of nnU-Net v2's readers known "
            f"are {', '.join(ORIENTATIONS)}. Predict with the nnU-Net v2 it was trained with"
        )
    preprocessor = chosen.get("preprocessor_name", "DefaultPreprocessor")
    if preprocessor != "DefaultPreprocessor":
        raise PlanError(
            f"the model was trained with {preprocessor!r}; of nnU-Net v2's preprocessors only "
            "DefaultPreprocessor is known"
        )


def _reader(content: Mapping[str, Any]) -> str:
    return str(content.get("image_reader_writer", "SimpleITKIO"))


def _network(chosen: Mapping[str, Any]) -> V2Network:
    if "architecture" in chosen:
        block = chosen["architecture"]
        name = str(block["network_class_name"]).rpartition(".")[2]
        return V2Network(class_name=name, arguments=dict(block["arch_kwargs"]))
    name, dimension = str(chosen["UNet_class_name"]), len(chosen["patch_size"])
    units = chosen["n_conv_per_stage_encoder"]
    base, most = int(chosen["UNet_base_num_features"]), int(chosen["unet_max_num_features"])
    return V2Network(
        class_name=name,
        arguments={
            "n_stages": len(units),
            "features_per_stage": [min(base * 2**i, most) for i in range(len(units))],
            "conv_op": f"torch.nn.Conv{dimension}d",
            "kernel_sizes": chosen["conv_kernel_sizes"],
            "strides": chosen["pool_op_kernel_sizes"],
            "n_conv_per_stage" if name == "PlainConvUNet" else "n_blocks_per_stage": units,
            "n_conv_per_stage_decoder": chosen["n_conv_per_stage_decoder"],
            "conv_bias": True,
            "norm_op": f"torch.nn.InstanceNorm{dimension}d",
            "norm_op_kwargs": {"eps": 1e-5, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
    )


def _plans(
    content: Mapping[str, Any],
    chosen: Mapping[str, Any],
    dataset: Mapping[str, Any],
    facts: Mapping[str, Any],
    network: V2Network,
) -> Plans:
    backward = _three(content["transpose_backward"])
    modalities = _modalities(dataset)
    classes, regions = _classes(dataset), _regions(dataset)
    schemes = dict(enumerate(map(_scheme, chosen["normalization_schemes"])))
    if len(schemes) != len(modalities):
        raise PlanError(
            f"plans.json normalises {len(schemes)} channels, but dataset.json names "
            f"{len(modalities)}"
        )
    masks = {
        i: bool(used) and schemes[i] == "nonCT"  # v2's other schemes do not look at the mask
        for i, used in enumerate(chosen["use_mask_for_norm"])
    }
    stage = _stage(content, chosen, network)
    features = network.arguments["features_per_stage"]
    return Plans(
        modalities=modalities,
        normalization_schemes=schemes,
        use_mask_for_norm=masks,
        classes=classes,
        base_features=int(features if isinstance(features, int) else features[0]),
        conv_per_stage=2,
        transpose_forward=_three(content["transpose_forward"]),
        transpose_backward=backward,
        data_identifier=str(chosen.get("data_identifier", "nnUNetPlans")),
        stages={0: stage},
        preprocessor_name="PreprocessorFor2D" if stage.dimension == 2 else "GenericPreprocessor",
        fingerprint=_fingerprint(content, facts, modalities, classes, backward),
        conventions="v2",
        regions=regions,
        orientation=ORIENTATIONS[_reader(content)],
        extra={
            "image_resampling_params": _resampling(chosen, "data", 3),
            "segmentation_export_params": _resampling(chosen, "probabilities", 1),
        },
    )


def _modalities(dataset: Mapping[str, Any]) -> dict[int, str]:
    names = dataset["channel_names"] if "channel_names" in dataset else dataset["modality"]
    return {int(number): str(name) for number, name in names.items()}


def _classes(dataset: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the foreground labels; the label `ignore` is none, the network never predicts it."""
    values = sorted({value for region in _by_name(dataset).values() for value in region})
    if values != list(range(len(values))):
        raise PlanError(f"the labels of dataset.json must be 0, 1, 2, ...; they are {values}")
    return tuple(values[1:])


def _regions(dataset: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Return the label that each region is written as; None where no labels are joined."""
    named = _by_name(dataset)
    if all(len(values) == 1 for values in named.values()):
        return None
    regions = [name for name, values in named.items() if set(values) != {0}]
    order = dataset.get("regions_class_order") or ()
    if len(order) != len(regions):
        raise PlanError(
            f"dataset.json has the regions {', '.join(regions)}, but regions_class_order names "
            f"{len(order)} labels"
        )
    return tuple(int(label) for label in order)


def _by_name(dataset: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the labels of each name that the network knows; a region has several."""
    return {
        str(name): tuple(map(int, value)) if isinstance(value, list) else (int(value),)
        for name, value in dataset["labels"].items()
        if name != "ignore"
    }


def _scheme(name: str) -> str:
    if name not in SCHEMES:
        raise PlanError(
            f"the model normalises images by {name!r}; known are {', '.join(SCHEMES)}. Predict "
            "with the nnU-Net v2 it was trained with"
        )
    return SCHEMES[name]


def _resampling(chosen: Mapping[str, Any], what: str, order: int) -> dict[str, Any]:
    """Return how images (`data`) or `probabilities` are resampled, under v1's names."""
    name = chosen.get(f"resampling_fn_{what}", SPLINES)
    asked = chosen.get(f"resampling_fn_{what}_kwargs") or {}
    if name == SPLINES:
        return {
            "interpolation_order": int(asked.get("order", order)),
            "interpolation_order_z": int(asked.get("order_z", 0)),
            "force_separate_z": asked.get("force_separate_z"),
        }
    linear = name in LINEAR and asked.get("mode", "linear") == "linear"
    if linear and (name == LINEAR[0] or asked.get("force_separate_z") is False):
        return {
            "interpolation_order": 1, "interpolation_order_z": 0, "force_separate_z": False,
        }  # fmt: skip
    raise PlanError(
        f"the model resamples {what} by {name!r} with {asked}, which is not supported; supported "
        f"are {SPLINES}, and {' and '.join(LINEAR)} where all axes are linear. Predict with "
        "nnU-Net v2"
    )


def _stage(content: Mapping[str, Any], chosen: Mapping[str, Any], network: V2Network) -> StagePlan:
    original = [float(v) for v in content["original_median_spacing_after_transp"]]
    spacing = [float(v) for v in chosen["spacing"]]
    median = [int(v) for v in chosen["median_image_size_in_voxels"]]
    if len(spacing) == 2:
        spacing.insert(0, original[0])
        median.insert(0, int(content["original_median_shape_after_transp"][0]))
    patch = tuple(int(v) for v in chosen["patch_size"])
    arguments = network.arguments
    strides = _per_level(arguments["strides"], int(arguments["n_stages"]), len(patch))
    kernels = _per_level(arguments["kernel_sizes"], int(arguments["n_stages"]), len(patch))
    return StagePlan(
        spacing=tuple(spacing),
        original_spacing=tuple(original),
        median_shape=tuple(median),
        patch_size=patch,
        batch_size=int(chosen.get("batch_size", 2)),
        dummy_2d_augmentation=False,
        topology=Topology.of(strides[1:], kernels),
        num_pool_per_axis=tuple(
            sum(stride[axis] > 1 for stride in strides) for axis in range(len(patch))
        ),
    )


def _per_level(value: Any, levels: int, dimension: int) -> list[list[int]]:
    """Return sizes per level and axis, of which v2 may write one for all."""
    by_level = value if isinstance(value, list) else [value] * levels
    return [
        [int(v) for v in size] if isinstance(size, list) else [int(size)] * dimension
        for size in by_level
    ]


def _fingerprint(
    content: Mapping[str, Any],
    facts: Mapping[str, Any],
    modalities: Mapping[int, str],
    classes: tuple[int, ...],
    backward: tuple[int, int, int],
) -> Fingerprint:
    """Return what is known of the training cases: of each, or else their median size."""
    median = [int(content["original_median_shape_after_transp"][axis]) for axis in backward]
    shapes = facts.get("shapes_after_crop") or [median]
    known = content.get("foreground_intensity_properties_per_channel")
    if known is None:  # 2.0
        known = content.get("foreground_intensity_properties_by_modality") or {}
    return Fingerprint(
        sizes=tuple(tuple(int(v) for v in shape) for shape in shapes),
        spacings=tuple(tuple(float(v) for v in s) for s in facts.get("spacings") or ()),
        classes=classes,
        modalities=modalities,
        intensities={
            int(channel): ChannelIntensities(overall=_statistics(found), by_case={})
            for channel, found in known.items()
        },
        size_reductions={},
    )


def _statistics(found: Mapping[str, Any]) -> IntensityStatistics:
    return IntensityStatistics(
        median=float(found.get("median", nan)),
        mean=float(found["mean"]),
        sd=float(found["std"]),
        mn=float(found.get("min", nan)),
        mx=float(found.get("max", nan)),
        percentile_99_5=float(found["percentile_99_5"]),
        percentile_00_5=float(found["percentile_00_5"]),
    )


def _three(values: Any) -> tuple[int, int, int]:
    a, b, c = (int(v) for v in values)
    if sorted((a, b, c)) != [0, 1, 2]:
        raise PlanError(f"{values} is not an order of three axes")
    return a, b, c
