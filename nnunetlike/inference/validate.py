"""Validation after training: predict a fold's validation cases and measure them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from nnunetlike.core.errors import NnunetlikeError, WorkerError
from nnunetlike.core.intact import damage
from nnunetlike.core.parallel import (
    SHARE_OF_FREE,
    Budget,
    default_processes,
    summed_up,
)
from nnunetlike.core.resources import free_memory
from nnunetlike.core.serialization import load_json, save_json
from nnunetlike.data.imageio import ending_in
from nnunetlike.data.store import CaseStore
from nnunetlike.evaluation.evaluator import evaluate_pairs
from nnunetlike.inference.background import Behind
from nnunetlike.inference.export import (
    Destination,
    ExportSettings,
    export_bytes,
    export_probabilities,
)
from nnunetlike.inference.fallback import predict_image
from nnunetlike.inference.strategies import STRATEGIES, Request
from nnunetlike.plans.plans import Plans

logger = logging.getLogger(__name__)
PROGRESS = "in_progress.json"
"""Says what makes the predictions of a validation; there until it is complete."""


@dataclass(frozen=True)
class _Files:
    """What is written of a case: `ID` + ending, and with `save_npz` also `ID.npz` and `ID.pkl`."""

    folder: Path
    ending: str
    """That of the references."""

    save_npz: bool

    def label(self, case_id: str) -> Path:
        return self.folder / f"{case_id}{self.ending}"

    def are_whole(self, case_id: str) -> bool:
        suffixes = (self.ending, ".npz", ".pkl") if self.save_npz else (self.ending,)
        return all(damage(self.folder / f"{case_id}{suffix}") is None for suffix in suffixes)


def validate(
    network: nn.Module,
    plans: Plans,
    stage: int,
    store: CaseStore,
    case_ids: Sequence[str],
    references: Path,
    output: Path,
    *,
    task: str,
    name: str,
    device: torch.device,
    step_size: float = 0.5,
    mirror: bool = True,
    gaussian: bool = True,
    save_npz: bool = False,
    overwrite: bool = True,
    processes: int | None = None,
    autocast: torch.dtype | None = None,
    strategy: str = "sliding_window",
) -> dict[str, Any]:
    """Predict preprocessed cases, compare them with the references and return the summary.

    A validation that was interrupted goes on where it was, provided weights and settings are those
    it began with. A case whose worker died is predicted again, alone, after the others.

    Args:
        network: in any mode; it comes back in the mode it had.
        plans: plans of the data set.
        stage: number of the stage the network was trained on.
        store: preprocessed cases of that stage.
        case_ids: cases to validate.
        references: folder of `ID.nii.gz` on the source grids.
        output: gets `ID.nii.gz`, `summary.json`, `validation_args.json`; with `save_npz` also
            `ID.npz` and `ID.pkl`.
        task: name of the task for the summary.
        name: name of the evaluation for the summary, `TRAINER val tiled True`.
        device: where the network lies.
        step_size: distance of windows as a share of the patch.
        mirror: average over mirrored views.
        gaussian: weigh the middle of windows more.
        save_npz: also keep probabilities.
        overwrite: predict cases again whose prediction is of an earlier, completed validation.
        processes: workers for export and evaluation; None takes v1's default, 0 works here.
        autocast: type to compute in; None computes in float32.
        strategy: name of the way to predict.

    Returns:
        The content of `summary.json`.

    Raises:
        DataError: a case or its reference is missing, or an export failed.
        WorkerError: a case's worker process died twice; the other cases are written.
        ResourceError: the disk is full, or a device's memory does not suffice.
    """
    processes = default_processes() if processes is None else processes
    output.mkdir(parents=True, exist_ok=True)
    _save_arguments(
        output, step_size=step_size, mirror=mirror, gaussian=gaussian, save_npz=save_npz,
        overwrite=overwrite,
    )  # fmt: skip
    patch = plans.stages[stage].patch_size
    request = Request(
        patch_size=patch,
        device=device,
        step_size=step_size,
        gaussian=gaussian,
        mirror_axes=tuple(range(len(patch))) if mirror else (),
        autocast=autocast,
    )
    ending = ending_in(references)
    work = _Work(
        plans=plans, store=store, output=output, ending=ending, save_npz=save_npz, request=request,
        strategy=strategy, processes=processes,
    )  # fmt: skip
    todo = _begin(work, case_ids, weights_hash(network), overwrite=overwrite)
    modes = _for_prediction(network)
    try:
        _predict_all(network, work, todo)
    finally:
        _restore(network, modes)
    pairs = [(output / f"{c}{ending}", references / f"{c}{ending}") for c in case_ids]
    summary = evaluate_pairs(pairs, list(range(plans.num_classes)), processes=processes)
    summary.write(output / "summary.json", name=name, description="", task=task, author="Fabian")
    (output / PROGRESS).unlink(missing_ok=True)
    content: dict[str, Any] = load_json(output / "summary.json")
    return content


def weights_hash(network: nn.Module) -> str:
    """Return a fingerprint (SHA-256) of the names and values of a network's weights."""
    found = hashlib.sha256()
    for name, value in network.state_dict().items():
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Work:
    """How cases are predicted and where predictions go."""

    plans: Plans
    store: CaseStore
    output: Path
    ending: str
    """Of label files."""

    save_npz: bool
    request: Request
    strategy: str
    processes: int

    def files(self, case_id: str) -> list[Path]:
        """Return the files of one prediction."""
        suffixes = (self.ending, ".npz", ".pkl") if self.save_npz else (self.ending,)
        return [self.output / f"{case_id}{suffix}" for suffix in suffixes]


def _begin(work: _Work, case_ids: Sequence[str], weights: str, *, overwrite: bool) -> list[str]:
    """Return the cases to predict; note what predicts them, so that a next run knows."""
    maker = {"weights": weights, "request": repr(work.request), "strategy": work.strategy}
    path = work.output / PROGRESS
    goes_on = path.is_file() and damage(path) is None and load_json(path) == maker
    if overwrite and not goes_on:
        for file in (file for case in case_ids for file in work.files(case)):
            file.unlink(missing_ok=True)
    if overwrite or goes_on:
        save_json(maker, path)
    else:  # what is there is of unknown origin
        path.unlink(missing_ok=True)
    todo = [case for case in case_ids if any(damage(file) for file in work.files(case))]
    if len(todo) < len(case_ids):
        done = len(case_ids) - len(todo)
        logger.info("%d of %d validation cases are done already", done, len(case_ids))
    return todo


def _predict_all(network: nn.Module, work: _Work, case_ids: Sequence[str]) -> None:
    """Predict cases; those whose worker died once more, alone."""
    errors = _predict(network, work, case_ids)
    for case in [c for c in case_ids if isinstance(errors.get(c), WorkerError)]:
        first = str(errors.pop(case)).splitlines()[0]
        logger.warning("%s. It is predicted once more, alone", first)
        errors |= _predict(network, work, [case])
    if errors:
        raise summed_up(errors, len(case_ids))


def _predict(
    network: nn.Module, work: _Work, case_ids: Sequence[str]
) -> dict[str, NnunetlikeError]:
    """Predict and write; return the errors of cases that could not be written."""
    strategy = STRATEGIES.get(work.strategy)
    settings = ExportSettings.of(work.plans)
    free = free_memory()
    budget = Budget(
        min(work.processes, len(case_ids)), float("inf") if free is None else SHARE_OF_FREE * free
    )
    with (
        Behind(budget) as behind,
        tqdm(case_ids, desc="validating", unit="case", disable=None) as bar,
    ):
        for case in bar:
            image = np.array(work.store.load(case)[:-1], np.float32)
            probabilities = predict_image(strategy, network, image, work.request)
            destination = Destination(path=work.files(case)[0], save_npz=work.save_npz)
            record = work.store.record(case)
            behind.submit(
                case, export_probabilities, probabilities, record, settings, destination,
                cost=export_bytes(probabilities, record),
            )  # fmt: skip
            behind.raise_if_pointless()
    behind.raise_if_pointless()
    return behind.errors


def _for_prediction(network: nn.Module) -> tuple[bool, bool]:
    modes = (network.training, bool(network.deep_supervision))
    network.eval()
    network.deep_supervision = False  # type: ignore[assignment]  # a bool by contract
    return modes


def _restore(network: nn.Module, modes: tuple[bool, bool]) -> None:
    network.train(modes[0])
    network.deep_supervision = modes[1]  # type: ignore[assignment]  # a bool by contract


def _save_arguments(
    output: Path, *, step_size: float, mirror: bool, gaussian: bool, save_npz: bool, overwrite: bool
) -> None:
    """Write `validation_args.json` as nnU-Net v1 does."""
    content = {
        "do_mirroring": mirror,
        "use_sliding_window": True,
        "step_size": step_size,
        "save_softmax": save_npz,
        "use_gaussian": gaussian,
        "overwrite": overwrite,
        "validation_folder_name": output.name,
        "debug": False,
        "all_in_gpu": False,
        "segmentation_export_kwargs": None,
    }
    save_json(content, output / "validation_args.json", sort_keys=True)
