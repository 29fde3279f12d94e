"""Giving a trained model the name of another trainer class, for nnU-Net v1 to make."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunetlike.core.errors import DataError
from nnunetlike.core.serialization import save_pickle
from nnunetlike.networks.model_files import (
    BEST,
    FINAL,
    INFORMATION,
    information_file,
    load_content,
    load_model_file,
    save_model_file,
)
from nnunetlike.networks.v1_init import init_for


def checkpoints_to_change(model: Path) -> list[Path]:
    """Return the final and best checkpoints of all folds of a model.

    Args:
        model: folder that holds `fold_*` or `all`.

    Raises:
        DataError: there are none.
    """
    folds = sorted(p for p in model.glob("*") if p.name.startswith("fold_") or p.name == "all")
    found = [fold / name for fold in folds for name in (BEST, FINAL) if (fold / name).is_file()]
    if not found:
        raise DataError(
            f"{model} holds no fold with {FINAL} or {BEST}. Give the folder TRAINER__PLANS of a "
            "trained model"
        )
    return found


def change_trainer(path: Path, trainer: str) -> str:
    """Let a checkpoint be one of another trainer; return the name of before.

    The constructor arguments become those that v1's class of this name takes. The weights stay as
    they are.

    Args:
        path: of `X.model`; `X.model.pkl` lies beside it.
        trainer: name of the class.

    Raises:
        DataError: the files cannot be read.
    """
    model = load_model_file(path)
    info = _renamed(model.info, trainer)
    before = str(model.info["name"])
    if INFORMATION in load_content(path):
        save_model_file(path, model.content, info)
    else:
        save_pickle(info, information_file(path))
    return before


def _renamed(info: Mapping[str, Any], trainer: str) -> dict[str, Any]:
    renamed = OrderedDict(info)
    renamed["init"] = init_for(trainer, info["init"])
    renamed["name"] = trainer
    if "trainer" in renamed:
        renamed["trainer"] = trainer
    return renamed
