"""Models of nnU-Net v2: `TRAINER__PLANS__CONFIGURATION` with `fold_*/checkpoint_*.pth`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nnunetlike.core.errors import DataError
from nnunetlike.networks.model_files import load_content
from nnunetlike.networks.v1_weights import load_v1_state_dict
from nnunetlike.networks.v2_networks import build_v2_network
from nnunetlike.plans.plans import Plans
from nnunetlike.plans.v2 import V2Model, load_v2_plans

logger = logging.getLogger(__name__)
FINAL, BEST, LATEST = "checkpoint_final", "checkpoint_best", "checkpoint_latest"
OURS = {"model_final_checkpoint": FINAL, "model_best": BEST, "model_latest": LATEST}
"""v2's name of each of v1's checkpoints."""


@dataclass(frozen=True, kw_only=True)
class LoadedV2:
    """All that prediction needs of a model of v2."""

    plans: Plans
    network: nn.Module
    mirror_axes: tuple[int, ...]
    """Axes of the patch along which training has mirrored."""

    checkpoints: tuple[Path, ...]
    weights: tuple[Mapping[str, Any], ...]


def is_v2_model(folder: Path) -> bool:
    """Tell whether a folder holds a model of nnU-Net v2, by its checkpoints or its name."""
    if any(folder.glob("fold_*/*.pth")):
        return True
    return folder.name.count("__") == 2 and not any(folder.glob("*/*.model"))


def load_v2(folder: Path, folds: Sequence[int | str] | None, checkpoint: str) -> LoadedV2:
    """Return a model of nnU-Net v2, read in place.

    Args:
        folder: `TRAINER__PLANS__CONFIGURATION`.
        folds: numbers or `all`; None takes every numbered fold that has a checkpoint.
        checkpoint: v1's or v2's name, without suffix.

    Raises:
        DataError: files are missing, damaged or ask to execute code, or the weights do not fit.
        PlanError: the model needs something that does not exist here.
        UsageError: the package with v2's networks is not installed.
    """
    paths = tuple(_checkpoint(fold, checkpoint) for fold in _folds(folder, folds))
    contents = [_content(path) for path in paths]
    first = contents[0]
    model = load_v2_plans(folder, str(first["init_args"]["configuration"]))
    network = build_v2_network(model)
    weights = tuple(_weights(content["network_weights"]) for content in contents)
    for path, content, tensors in zip(paths, contents, weights, strict=True):
        _require_fit(path, content, model, network, tensors)
    return LoadedV2(
        plans=model.plans,
        network=network,
        mirror_axes=_mirror_axes(paths[0], first, model),
        checkpoints=paths,
        weights=weights,
    )


def _mirror_axes(path: Path, content: Mapping[str, Any], model: V2Model) -> tuple[int, ...]:
    """Return the axes to mirror; those of the first fold count, as in v2."""
    axes = content.get("inference_allowed_mirroring_axes") or ()
    dimension = model.plans.stages[0].dimension
    if not set(axes) <= set(range(dimension)):
        raise DataError(f"{path} mirrors the axes {tuple(axes)} of a patch with {dimension} axes")
    return tuple(int(axis) for axis in axes)


def _folds(folder: Path, folds: Sequence[int | str] | None) -> list[Path]:
    there = sorted(p for p in folder.glob("fold_*") if any(p.glob("checkpoint_*.pth")))
    names = ", ".join(path.name for path in there) or "none"
    if folds is None:
        numbered = [path for path in there if path.name != "fold_all"]
        chosen = numbered or there
        if not chosen:
            raise DataError(f"{folder} has no fold_*/{FINAL}.pth; folds found: {names}")
        return chosen
    asked = [folder / f"fold_{fold}" for fold in folds]
    missing = [path.name for path in asked if path not in there]
    if missing:
        raise DataError(
            f"{folder} has no checkpoint for {', '.join(missing)}; folds found: {names}. Choose "
            "others with -f"
        )
    return asked


def _checkpoint(fold: Path, name: str) -> Path:
    wanted = OURS.get(name, name.removesuffix(".pth"))
    for candidate in dict.fromkeys((wanted, FINAL, BEST, LATEST)):
        path = fold / f"{candidate}.pth"
        if path.is_file():
            if candidate != wanted:
                logger.warning("%s has no %s.pth; taking %s instead", fold, wanted, path.name)
            return path
    there = ", ".join(path.name for path in sorted(fold.glob("*.pth")))
    raise DataError(f"{fold} has no {wanted}.pth; found: {there}. Name another with -chk")


def _content(path: Path) -> dict[str, Any]:
    content = load_content(path)
    parts = ("network_weights", "init_args")
    lacking = [p for p in parts if not isinstance(content, dict) or not content.get(p)]
    if not lacking and "configuration" not in content["init_args"]:
        lacking = ["configuration (in init_args)"]
    if not lacking and not all(map(torch.is_tensor, content["network_weights"].values())):
        lacking = ["tensors"]
    if lacking:
        raise DataError(
            f"{path} is not a checkpoint of nnU-Net v2: it lacks {' and '.join(lacking)}"
        )
    return content


def _weights(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights without what several processes or compilation put before each name."""
    return {
        name.removeprefix("module.").removeprefix("_orig_mod."): tensor
        for name, tensor in tensors.items()
    }


def _require_fit(
    path: Path,
    content: Mapping[str, Any],
    model: V2Model,
    network: nn.Module,
    weights: Mapping[str, Tensor],
) -> None:
    try:
        load_v1_state_dict(network, weights)
    except DataError as error:
        raise DataError(
            f"{path} does not fit the {model.network.class_name} of plans.json. Its trainer, "
            f"{content.get('trainer_name')!r}, may build a network of its own, which is not known "
            f"here ({error})"
        ) from None
