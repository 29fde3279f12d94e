"""Preprocessed cases through the network to their files; label maps are settled on the way."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

import torch
from tqdm import tqdm

from nnunetlike.core.errors import NnunetlikeError
from nnunetlike.core.heap import freed_memory_kept
from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import SHARE_OF_FREE, Budget, budget_for, named
from nnunetlike.core.resources import available_cores
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.record import CaseRecord
from nnunetlike.inference.averaging import classes_of, mean_slabs
from nnunetlike.inference.background import Behind, ahead
from nnunetlike.inference.cases import InputCase, PrepareCase
from nnunetlike.inference.export import (
    Destination,
    ExportSettings,
    LabelOnNetworkGrid,
    LabelWithinBox,
    export_bytes,
    export_label,
    export_settled,
    in_hand,
    keep,
)
from nnunetlike.inference.model_bundle import ModelBundle
from nnunetlike.inference.settings import PredictionSettings
from nnunetlike.inference.spill import Spilled
from nnunetlike.inference.streaming import settled

logger = logging.getLogger(__name__)
PREPARE_FACTOR = 12
"""Memory that reading, cropping and resampling a case takes, per byte of its files unpacked."""


@dataclass(frozen=True, kw_only=True)
class SettledCase:
    """A case whose labels are decided, to be written."""

    label: LabelMap
    """Of the cropped source, (D, H, W); in the fast modes of the network's grid."""

    kept: Spilled | None
    """Probabilities on the network's grid, if they are to be saved."""

    record: CaseRecord
    destination: Destination


def settle_case(
    bundle: ModelBundle,
    image: FloatArray,
    record: CaseRecord,
    settings: PredictionSettings,
    destination: Destination,
) -> SettledCase:
    """Return the labels of a preprocessed image, by the mean of the folds.

    Memory holds a slab of probabilities, as deep as a window. Meanwhile cuDNN chooses the fastest
    of its ways, and freed memory is kept, in this whole process.

    Args:
        bundle: the model.
        image: (C, d, h, w).
        record: what preprocessing did to the case.
        settings: see there.
        destination: files that are in hand lie beside it.

    Raises:
        ResourceError: the memory of the device does not suffice, even with the sums elsewhere, or
            the disk has no room for sums or probabilities.
    """
    export = ExportSettings.of(bundle.plans)
    shape = (classes_of(bundle), *image.shape[1:])
    target = (
        LabelWithinBox(shape, record, export)
        if settings.mode == "normal"
        else LabelOnNetworkGrid(shape, export)
    )
    kept = keep(destination, shape)
    fastest = torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=True)
    with fastest, freed_memory_kept():
        slabs = mean_slabs(bundle, image, settings, in_hand(destination.path, "sums"))
        label = settled(slabs, target, kept, device=settings.device.type)
    return SettledCase(label=label, kept=kept, record=record, destination=destination)


def predict_cases(
    bundle: ModelBundle,
    cases: Sequence[InputCase],
    destinations: Mapping[str, Destination],
    settings: PredictionSettings,
) -> dict[str, NnunetlikeError]:
    """Predict and write; return the errors of cases that failed.

    Raises:
        ResourceError: the disk is full.
    """
    errors: dict[str, NnunetlikeError] = {}
    cores = available_cores()
    costs = [_cost(case) for case in cases]
    reading = budget_for(
        min(settings.preprocessing_processes, cores), costs, [case.case_id for case in cases],
        "preparing cases", SHARE_OF_FREE / 2,
    )  # fmt: skip
    writing = Budget(min(settings.export_processes, cores, len(cases)), reading.memory)
    prepare = PrepareCase(bundle.plans, bundle.stage)
    with (
        ExitStack() as left,  # what a worker that died has not removed
        Behind(writing) as behind,
        closing(ahead(prepare, cases, budget=reading, costs=costs)) as prepared,
        tqdm(total=len(cases), desc="predicting", unit="case", disable=None) as bar,
    ):
        for case, outcome in prepared:
            try:
                image, record = _result(outcome)
                destination = destinations[case.case_id]
                found = settle_case(bundle, image, record, settings, destination)
            except NnunetlikeError as error:
                errors[case.case_id] = named(error, case.case_id)
                logger.warning("%s", errors[case.case_id])
            else:
                if found.kept is not None:
                    left.callback(found.kept.remove)
                _export(behind, found, bundle, settings, case.case_id)
            bar.update()
            behind.raise_if_pointless()
    behind.raise_if_pointless()
    return errors | behind.errors


def predict_one(
    bundle: ModelBundle, case: InputCase, destination: Destination, settings: PredictionSettings
) -> None:
    """Read, predict and write one case, all in this process.

    Raises:
        NnunetlikeError: the case is not what it should be, or memory or disk do not suffice.
    """
    image, record = PrepareCase(bundle.plans, bundle.stage)(case)
    found = settle_case(bundle, image, record, settings, destination)
    with Behind(Budget(0)) as here:
        _export(here, found, bundle, settings, case.case_id)
    for error in here.errors.values():
        raise error


def _cost(case: InputCase) -> float:
    return PREPARE_FACTOR * sum(map(unpacked_size, case.files.images))


def _result(
    outcome: tuple[FloatArray, CaseRecord] | NnunetlikeError,
) -> tuple[FloatArray, CaseRecord]:
    if isinstance(outcome, NnunetlikeError):
        raise outcome
    return outcome


def _export(
    behind: Behind,
    found: SettledCase,
    bundle: ModelBundle,
    settings: PredictionSettings,
    case_id: str,
) -> None:
    export = ExportSettings.of(bundle.plans)
    if settings.mode == "normal":
        behind.submit(
            case_id, export_settled, found.label, found.kept, found.record, export,
            found.destination, cost=export_bytes(found.record, export, found.kept),
        )  # fmt: skip
        return
    if settings.mode == "fastest":
        export = replace(export, order=0)
    behind.submit(case_id, export_label, found.label, found.record, export, found.destination)
