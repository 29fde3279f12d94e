"""nnUNet_export_onnx: a trained network for runtimes without this package."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from nnunetlike.core import paths
from nnunetlike.core.errors import DataError, UsageError
from nnunetlike.core.serialization import atomic_path, save_json
from nnunetlike.core.typing import Size
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.store import CaseStore
from nnunetlike.inference.deployment import describe_model
from nnunetlike.inference.model_bundle import FINAL, ModelBundle, load_bundle
from nnunetlike.networks.portable import (
    OPSET,
    SUFFIXES,
    Format,
    Parity,
    Patches,
    compare,
    load_network,
    random_patches,
    require_exporter,
    require_parity,
    write_network,
)
from nnunetlike.networks.pretrained import load_pretrained, names_of_outputs
from nnunetlike.postprocessing.determine import POSTPROCESSING_FILE, load_postprocessing
from nnunetlike.run.command_line import CommandParser, run_command

RANDOM = (1, 2)
"""Sizes of the batches of random patches that are compared."""


@dataclass(frozen=True)
class _RealPatch:
    """A patch of a preprocessed case."""

    case_id: str
    patches: Patches


def build_parser() -> CommandParser:
    """Return the parser of the command."""
    parser = CommandParser(
        prog="nnUNet_export_onnx",
        description="Write a trained network as ONNX, one file per fold, and onnx.json, which says "
        "all that a runtime needs: patch, spacing, normalisation, labels. Each file is run and "
        "compared with the original; one that differs is not written.",
        examples=("nnUNet_export_onnx -t 4 -m 3d_fullres -f 0 -o onnx",),
    )
    add = parser.add_argument
    add("-t", "--task_name", required=True, help="task name or number")
    add("-m", "--model", default="3d_fullres", choices=[c for c in paths.CONFIGURATIONS
        if c != paths.VIDEO], help="configuration")  # fmt: skip
    add("-tr", "--trainer_class_name", default=paths.DEFAULT_TRAINER, help="name of the trainer")
    add("-p", "--plans_identifier", default=paths.DEFAULT_PLANS, help="name of the plans")
    add("-f", "--folds", nargs="+", default=None, help="folds to export, numbers or 'all'; None "
        "takes every fold_* that was trained")  # fmt: skip
    add("-chk", "--checkpoint", default=FINAL, help="checkpoint name, without .model")
    add("-o", "--output_folder", required=True, type=Path, help="folder for the files")
    add("--torchscript", action="store_true", help="write TorchScript (fold_0.pt, torchscript.json)"
        " instead of ONNX; needs no further package")  # fmt: skip
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    return run_command(_export, build_parser, argv)


def _export(args: argparse.Namespace) -> None:
    kind: Format = "torchscript" if args.torchscript else "onnx"
    require_exporter(kind)
    task = paths.task_name(args.task_name)
    folder = paths.model_folder(args.model, task, args.trainer_class_name, args.plans_identifier)
    folds = None if args.folds is None else [paths.parse_fold(text) for text in args.folds]
    bundle = load_bundle(folder, folds, args.checkpoint)
    if bundle.video is not None:
        raise UsageError(
            f"{folder} goes through videos frame by frame with a memory, which has no form in ONNX"
        )
    first = next(iter(bundle.networks(torch.device("cpu"))))
    channels = _channels(first)
    real = _real_patch(bundle, task, channels)
    if real is None:
        print("no preprocessed case of this model is at hand; random patches alone are compared")
    output = args.output_folder
    output.mkdir(parents=True, exist_ok=True)
    files = [
        _write_fold(network, fold, bundle, output, kind, channels, real)
        for fold, network in zip(bundle.folds, bundle.networks(torch.device("cpu")), strict=True)
    ]
    description = describe_model(bundle, _label_names(bundle, task), channels=channels)
    rules = folder / POSTPROCESSING_FILE
    facts = {
        "postprocessing": load_postprocessing(rules) if rules.is_file() else None,
        "task": task, "configuration": args.model, "format": kind,
        **({"opset": OPSET} if kind == "onnx" else {}), "files": files,
    }  # fmt: skip
    save_json({**description, **facts}, output / f"{kind}.json")
    print(f"{len(files)} network(s) and {kind}.json are in {output}")


def _write_fold(
    network: nn.Module,
    fold: str,
    bundle: ModelBundle,
    output: Path,
    kind: Format,
    channels: int,
    real: _RealPatch | None,
) -> dict[str, Any]:
    """Write one fold if the file computes what the network does; return what is known of it."""
    path = output / f"{fold}{SUFFIXES[kind]}"
    patch = bundle.plans.stages[bundle.stage].patch_size
    batches = random_patches(channels, patch, RANDOM)
    with atomic_path(path) as temporary:
        write_network(network, batches[0], temporary, kind)
        exported = load_network(temporary, kind)
        on_random = compare(network, exported, batches)
        require_parity(on_random, path.name, f"{on_random.patches} random patches")
        on_real = None if real is None else compare(network, exported, [real.patches])
        if real is not None and on_real is not None:
            require_parity(on_real, path.name, f"a patch of {real.case_id}")
    print(f"{path.name}: {_told(on_random, f'{on_random.patches} random patches')}")
    if real is not None and on_real is not None:
        print(f"{path.name}: {_told(on_real, f'the middle of {real.case_id}')}")
    return {
        "fold": fold,
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "checkpoint": bundle.checkpoints[bundle.folds.index(fold)].name,
        "parity": {
            "random_patches": on_random.describe(),
            "real_patch": None
            if real is None or on_real is None
            else {"case": real.case_id, **on_real.describe()},
        },
    }


def _told(parity: Parity, where: str) -> str:
    return (
        f"probabilities differ by at most {parity.largest_difference_of_probabilities:.1e}, "
        f"{parity.share_of_equal_labels:.4%} of the labels are equal, on {where}"
    )


def _channels(network: nn.Module) -> int:
    """Return the input channels of a network, those of its first convolution."""
    kinds = (nn.Conv2d, nn.Conv3d)
    return next(module.in_channels for module in network.modules() if isinstance(module, kinds))


def _real_patch(bundle: ModelBundle, task: str, channels: int) -> _RealPatch | None:
    """Return the middle of a preprocessed case, padded by 0; None where there is none at hand."""
    plans, patch = bundle.plans, bundle.plans.stages[bundle.stage].patch_size
    try:
        folder = paths.preprocessed() / task / plans.stage_folder(bundle.stage)
    except UsageError:  # the variable is not set
        return None
    store = CaseStore(folder)
    names = store.case_ids() if folder.is_dir() else []
    if not names:
        return None
    image = np.asarray(store.load(names[0])[:-1], np.float32)
    if len(image) != channels:
        return None
    return _RealPatch(names[0], _middle(image, patch))


def _middle(image: Patches, patch: Size) -> Patches:
    """Return the middle (1, C, *patch) of an image (C, D, H, W); of slices the middle one."""
    if len(patch) == 2:
        image = image[:, image.shape[1] // 2]
    found = np.zeros((len(image), *patch), np.float32)
    inner = [min(n, p) for n, p in zip(image.shape[1:], patch, strict=True)]
    here, there = (
        tuple(slice((n - i) // 2, (n - i) // 2 + i) for n, i in zip(shape, inner, strict=True))
        for shape in (image.shape[1:], patch)
    )
    found[(slice(None), *there)] = image[(slice(None), *here)]
    return found[None]


def _label_names(bundle: ModelBundle, task: str) -> tuple[str, ...] | None:
    """Return the names of the outputs: those of the checkpoint, else of the task's dataset.json."""
    checkpoint = bundle.checkpoints[0]
    found = load_pretrained(checkpoint).labels if checkpoint.suffix == ".model" else None
    if found is not None:
        return found
    homes = [bundle.folder]
    for home in (paths.preprocessed, paths.raw_data):
        with suppress(UsageError):  # the variable is not set
            homes.append(home() / task)
    for folder in homes:
        with suppress(DataError):  # names are a comfort; numbers stand in for them
            names = DatasetSpec.load(folder / "dataset.json").labels.names
            return names_of_outputs(names, bundle.plans.classes)
    return None


if __name__ == "__main__":
    raise SystemExit(main())
