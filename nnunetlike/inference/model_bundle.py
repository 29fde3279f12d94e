"""A trained model: its plans, one network and the weights of the folds that predict together."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunetlike.core.errors import DataError
from nnunetlike.core.paths import OFFICIAL, fold_name
from nnunetlike.inference.strategies import STRATEGIES, Strategy
from nnunetlike.inference.v2_bundle import is_v2_model, load_v2
from nnunetlike.networks import NETWORKS
from nnunetlike.networks.compiling import MODES, compile_network, is_compiled, obstacle
from nnunetlike.networks.memory_format import lay_out
from nnunetlike.networks.model_files import ModelFile, find_checkpoint, load_model_file
from nnunetlike.networks.v1_weights import load_v1_state_dict
from nnunetlike.plans.plans import Plans, VideoPlan

logger = logging.getLogger(__name__)
FINAL = "model_final_checkpoint"


@dataclass(frozen=True, kw_only=True)
class ModelBundle:
    """A trained model ready to predict. The network is in memory once, the weights per fold."""

    folder: Path
    plans: Plans
    stage: int
    network: nn.Module
    """In evaluation mode, giving the full resolution only."""

    strategy: Strategy
    checkpoints: tuple[Path, ...]
    """One per fold."""

    weights: tuple[Mapping[str, Any], ...]
    """Weights of each fold under v1's names, in main memory."""

    mirror_axes: tuple[int, ...] | None = None
    """Axes of the patch that training has mirrored, where the model tells; None: all."""

    @property
    def mirrored(self) -> tuple[int, ...]:
        """Axes of the patch over whose mirrored views predictions are averaged."""
        if self.video is not None:
            return ()
        if self.mirror_axes is not None:
            return self.mirror_axes
        return tuple(range(self.plans.stages[self.stage].dimension))

    @property
    def folds(self) -> tuple[str, ...]:
        """Names of the fold folders."""
        return tuple(path.parent.name for path in self.checkpoints)

    @property
    def video(self) -> VideoPlan | None:
        """What the plans say of videos; None where the model predicts images."""
        return self.plans.stages[self.stage].video

    @property
    def is_second_stage(self) -> bool:
        """Whether the network takes what the low resolution of a cascade has found."""
        architecture = getattr(self.network, "architecture", None)
        return architecture is not None and architecture.channels > self.plans.num_channels

    def networks(
        self, device: torch.device, dtype: torch.dtype | None = None, *, compiled: bool = False
    ) -> Iterator[nn.Module]:
        """Yield the network on `device` with the weights of each fold in turn.

        Args:
            device: where it predicts.
            dtype: type to compute in where torch thinks it safe; None computes in float32.
            compiled: by torch.compile; the network then stays so.
        """
        self.network.to(device)
        if not is_compiled(self.network):
            lay_out(self.network, device, dtype)
            if compiled and obstacle(self.network, device) is None:
                compile_network(self.network, device, MODES.get(device.type))
        for weights in self.weights:
            load_v1_state_dict(self.network, weights)
            yield self.network


def load_bundle(
    folder: Path, folds: Sequence[int | str] | None = None, checkpoint: str = FINAL
) -> ModelBundle:
    """Return the trained model of a folder `TRAINER__PLANS`, or one of nnU-Net v2.

    Args:
        folder: holds `fold_0`, ..., `fold_official` or `all`.
        folds: numbers, `official` or `all`; None takes every numbered fold that has a checkpoint,
            else the official one.
        checkpoint: file name without `.model`; where a fold lacks it, final, latest or best is
            taken instead, with a warning.

    Raises:
        DataError: folder, folds or checkpoints are missing; the message lists what exists.
        UsageError: a model of nnU-Net v2 needs a package that is not installed.
    """
    if not folder.is_dir():
        raise DataError(f"there is no trained model at {folder}. {_models_nearby(folder)}")
    if is_v2_model(folder):
        return _v2_bundle(folder, folds, checkpoint)
    chosen = _fold_folders(folder, folds)
    checkpoints = tuple(_checkpoint(fold, checkpoint) for fold in chosen)
    first = load_model_file(checkpoints[0])
    rest = [load_model_file(path).state_dict for path in checkpoints[1:]]
    return ModelBundle(
        folder=folder,
        plans=first.plans,
        stage=first.stage,
        network=first.build().eval(),
        strategy=STRATEGIES.get(_strategy_name(first)),
        checkpoints=checkpoints,
        weights=(first.state_dict, *rest),
    )


def _v2_bundle(folder: Path, folds: Sequence[int | str] | None, checkpoint: str) -> ModelBundle:
    model = load_v2(folder, folds, checkpoint)
    return ModelBundle(
        folder=folder,
        plans=model.plans,
        stage=0,
        network=model.network,
        strategy=STRATEGIES.get("sliding_window"),
        checkpoints=model.checkpoints,
        weights=model.weights,
        mirror_axes=model.mirror_axes,
    )


def _strategy_name(model: ModelFile) -> str:
    """Return the name of the network's way to predict; v1 knows one only."""
    description = model.info.get("network")
    if description is None:
        return "sliding_window"
    return NETWORKS.get(description["spec"]["name"]).strategy


def _fold_folders(folder: Path, folds: Sequence[int | str] | None) -> list[Path]:
    there = sorted(
        p for p in folder.iterdir()
        if p.is_dir() and (p.name.startswith("fold_") or p.name == "all") and any(p.glob("*.model"))
    )  # fmt: skip
    names = ", ".join(path.name for path in there) or "none"
    if folds is None:
        official = folder / fold_name(OFFICIAL)
        chosen = [path for path in there if path.name != "all" and path != official]
        chosen = chosen or [path for path in there if path == official]
        if not chosen:
            hint = " Ask for the fold 'all'" if there else ""
            raise DataError(
                f"{folder} has no fold_* with a checkpoint; folds found: {names}.{hint}"
            )
        return chosen
    asked = [folder / fold_name(fold) for fold in folds]
    missing = [path.name for path in asked if path not in there]
    if missing:
        raise DataError(
            f"{folder} has no checkpoint for {', '.join(missing)}; folds found: {names}. Train "
            "them, or choose others with -f"
        )
    return asked


def _checkpoint(fold: Path, name: str) -> Path:
    wanted = fold / f"{name}.model"
    if wanted.is_file():
        return wanted
    found = find_checkpoint(fold, None)
    logger.warning("%s has no %s; taking %s instead", fold, wanted.name, found.name)
    return found


def _models_nearby(folder: Path) -> str:
    """Return a sentence on the trained models of the same task and configuration."""
    task = folder.parent
    if task.is_dir():
        names = sorted(p.name for p in task.iterdir() if p.is_dir())
        return f"{task} holds: {', '.join(names) or 'nothing'}. Choose one with -tr and -p"
    configuration = task.parent
    home = configuration.parent
    others = sorted(p.parent.name for p in home.glob(f"*/{task.name}") if p.is_dir())
    if others:
        return f"{task.name} was trained as {', '.join(others)}; choose with -m"
    if configuration.is_dir():
        names = sorted(p.name for p in configuration.iterdir() if p.is_dir())
        return f"Tasks trained as {configuration.name}: {', '.join(names) or 'none'}"
    return f"Nothing was trained as {configuration.name}"
