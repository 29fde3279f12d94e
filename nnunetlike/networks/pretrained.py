"""Weights of another training to start from: ours, nnU-Net v1's or v2's, under our names."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import load_json, load_pickle, unpickle_bytes
from nnunetlike.networks.model_files import (
    INFORMATION,
    information_file,
    load_content,
    without_module,
)
from nnunetlike.networks.v1_weights import by_our_names
from nnunetlike.plans.v1 import plans_from_v1

FIRST = "encoder.0.0.conv.weight"
"""Our name of the weight that meets the image channels."""

_V2_ENCODER = re.compile(r"encoder\.stages\.(\d+)\.0\.convs\.(\d+)\.(conv|norm)\.(weight|bias)")
_V2_DECODER = re.compile(r"decoder\.stages\.(\d+)\.convs\.(\d+)\.(conv|norm)\.(weight|bias)")
_V2_REST = re.compile(r"decoder\.(transpconvs|seg_layers)\.(\d+)\.(weight|bias)")


@dataclass(frozen=True, kw_only=True)
class PretrainedWeights:
    """What a file of weights holds."""

    path: Path
    tensors: Mapping[str, Tensor]
    """By our names; what has none here keeps its own."""

    channels: tuple[str, ...] | None = None
    """Names of the input channels; None where the file does not tell."""

    labels: tuple[str, ...] | None = None
    """Names of the outputs, background first; None where the file does not tell."""


def load_pretrained(path: Path) -> PretrainedWeights:
    """Return the weights of a checkpoint.

    Args:
        path: `X.model` of ours or of nnU-Net v1 (`X.model.pkl` beside it tells the channels' names,
            but may be missing), or `checkpoint_final.pth` of v2 with its plain U-Net.

    Raises:
        DataError: the file is missing or damaged, holds more than tensors and plain types, or a
            network that has no counterpart here.
    """
    content = load_content(path)
    if "network_weights" in content:
        return _from_v2(path, content)
    if "state_dict" not in content:
        raise DataError(
            f"{path} holds neither state_dict (nnU-Net v1, and here) nor network_weights (v2); it "
            f"has {', '.join(map(str, content)) or 'nothing'}"
        )
    tensors = by_our_names(without_module(content["state_dict"]))
    info = _information(path, content)
    if "plans" not in info:
        return PretrainedWeights(path=path, tensors=tensors)
    plans = plans_from_v1(info["plans"])
    names = [name for _, name in sorted(plans.modalities.items())]
    labels: Mapping[int, str] | None = info.get("labels")
    return PretrainedWeights(
        path=path,
        tensors=tensors,
        channels=names_of_channels(names, plans.classes, _inputs(tensors)),
        labels=names_of_outputs(labels, plans.classes),
    )


def names_of_channels(
    modalities: Sequence[str], classes: Sequence[int], count: int
) -> tuple[str, ...] | None:
    """Return the names of `count` input channels, or None where they are not known.

    The second stage of a cascade has a channel per class after those of the image.
    """
    after = [f"label {value} of the low resolution" for value in classes]
    names = tuple(modalities) if count == len(modalities) else (*modalities, *after)
    return names if len(names) == count else None


def names_of_outputs(
    labels: Mapping[int, str] | None, classes: Sequence[int]
) -> tuple[str, ...] | None:
    """Return the names of the outputs, background first; None unless all classes have names."""
    if not labels or any(value not in labels for value in classes):
        return None
    return (labels.get(0, "background"), *(labels[value] for value in classes))


def _information(path: Path, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what stands beside the weights; nothing if only they were handed on."""
    entry = content.get(INFORMATION)
    if entry is not None:
        info: Mapping[str, Any] = unpickle_bytes(entry.numpy().tobytes(), str(path))
        return info
    beside = information_file(path)
    return load_pickle(beside) if beside.is_file() else {}


def _inputs(tensors: Mapping[str, Tensor]) -> int:
    return int(tensors[FIRST].shape[1]) if FIRST in tensors else 0


def _from_v2(path: Path, content: Mapping[str, Any]) -> PretrainedWeights:
    """Return the weights of v2's plain U-Net (`dynamic-network-architectures`).

    It numbers decoder parts from the bottleneck up and lists most tensors several times; its
    transposed convolutions and heads have biases, ours have not.
    """
    found = without_module(content["network_weights"])
    places = [match for name in found if (match := _V2_ENCODER.fullmatch(name))]
    if not places:
        raise DataError(
            f"{path} holds a network of nnU-Net v2 that is no plain U-Net (a residual encoder, for "
            "example), which has no counterpart here; give a checkpoint of nnUNetPlans"
        )
    depth = max(int(match[1]) for match in places)
    tensors = {ours: found[name] for name in found if (ours := _from_v2_name(name, depth))}
    facts = (content.get("init_args") or {}).get("dataset_json")
    beside = path.parent.parent / "dataset.json"
    if facts is None:
        facts = load_json(beside) if beside.is_file() else {}
    return PretrainedWeights(
        path=path, tensors=tensors, channels=_v2_channels(facts), labels=_v2_labels(facts)
    )


def _from_v2_name(name: str, depth: int) -> str | None:
    """Return our name of a tensor of v2; None of one that is listed under another name too."""
    if match := _V2_ENCODER.fullmatch(name):
        level, unit, part, value = match.groups()
        return f"encoder.{level}.{unit}.{part}.{value}"
    if match := _V2_DECODER.fullmatch(name):
        stage, unit, part, value = match.groups()
        return f"decoder.{depth - 1 - int(stage)}.convs.{unit}.{part}.{value}"
    if match := _V2_REST.fullmatch(name):
        kind, stage, value = match.groups()
        level = str(depth - 1 - int(stage))
        return f"decoder.{level}.up.{value}" if kind == "transpconvs" else f"heads.{level}.{value}"
    return None


def _v2_channels(facts: Mapping[str, Any]) -> tuple[str, ...] | None:
    names: Mapping[str, str] = facts.get("channel_names") or facts.get("modality") or {}
    return tuple(str(names[key]) for key in sorted(names, key=int)) or None


def _v2_labels(facts: Mapping[str, Any]) -> tuple[str, ...] | None:
    labels: Mapping[str, Any] = facts.get("labels") or {}
    plain = {v: str(name) for name, v in labels.items() if isinstance(v, int) and name != "ignore"}
    if len(plain) < len(labels) - ("ignore" in labels):
        return None  # regions
    return names_of_outputs(plain, sorted(value for value in plain if value))
