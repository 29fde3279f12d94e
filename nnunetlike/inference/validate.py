"""Validation after training: predict a fold's validation cases and measure them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from nnunetlike.core.errors import DataError
from nnunetlike.core.parallel import default_processes
from nnunetlike.core.serialization import load_json, save_json
from nnunetlike.data.dataset import SUFFIX
from nnunetlike.data.store import CaseStore
from nnunetlike.evaluation.evaluator import evaluate_pairs
from nnunetlike.inference.background import Behind, worker_pool
from nnunetlike.inference.export import Destination, ExportSettings, export_probabilities
from nnunetlike.inference.strategies import STRATEGIES, Request
from nnunetlike.plans.plans import Plans

logger = logging.getLogger(__name__)


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
        overwrite: predict cases again whose prediction exists.
        processes: workers for export and evaluation; None takes v1's default, 0 works here.
        autocast: type to compute in; None computes in float32.
        strategy: name of the way to predict.

    Returns:
        The content of `summary.json`.

    Raises:
        DataError: a case or its reference is missing, or an export failed.
        WorkerError: a worker process died.
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
    todo = [case for case in case_ids if overwrite or not _done(output, case, save_npz=save_npz)]
    modes = _for_prediction(network)
    try:
        _predict(network, plans, store, todo, output, request, strategy, processes, save_npz)
    finally:
        _restore(network, modes)
    pairs = [(output / f"{c}{SUFFIX}", references / f"{c}{SUFFIX}") for c in case_ids]
    summary = evaluate_pairs(pairs, list(range(plans.num_classes)), processes=processes)
    summary.write(output / "summary.json", name=name, description="", task=task, author="Fabian")
    content: dict[str, Any] = load_json(output / "summary.json")
    return content


def _predict(
    network: nn.Module,
    plans: Plans,
    store: CaseStore,
    case_ids: Sequence[str],
    output: Path,
    request: Request,
    strategy: str,
    processes: int,
    save_npz: bool,
) -> None:
    predict = STRATEGIES.get(strategy)
    settings = ExportSettings.of(plans)
    writers = min(processes, len(case_ids))
    with (
        worker_pool(writers) as pool,
        Behind(pool, writers + 1) as behind,
        tqdm(case_ids, desc="validating", unit="case", disable=None) as bar,
    ):
        for case in bar:
            image = np.array(store.load(case)[:-1], np.float32)
            probabilities = predict(network, image, request)
            destination = Destination(path=output / f"{case}{SUFFIX}", save_npz=save_npz)
            behind.submit(
                case, export_probabilities, probabilities, store.record(case), settings,
                destination,
            )  # fmt: skip
    if behind.errors:
        raise DataError("\n".join(str(error) for error in behind.errors))


def _done(output: Path, case_id: str, *, save_npz: bool) -> bool:
    suffixes = (SUFFIX, ".npz", ".pkl") if save_npz else (SUFFIX,)
    return all((output / f"{case_id}{suffix}").is_file() for suffix in suffixes)


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
