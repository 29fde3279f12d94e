"""A whole data set to one or all stages of its plans, in parallel."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from nnunetlike.core.intact import unpacked_size
from nnunetlike.core.parallel import Workers, process_map
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore, Form
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.cropping import Cropped
from nnunetlike.preprocessing.journal import NEW, Journal, remove_leftovers
from nnunetlike.preprocessing.preprocessor import Preprocessor

logger = logging.getLogger(__name__)
MEMORY_FACTOR = 4
"""Memory that preprocessing takes, per byte of the arrays that go in and come out (measured)."""


def preprocess_dataset(
    plans: Plans,
    cropped: CaseStore,
    output: Path,
    case_ids: Sequence[str],
    *,
    processes: Callable[[int], Workers],
    form: Form = "npz",
) -> None:
    """Write every case at every stage below `output` (`nnUNetData_plans_v2.1_stage0`, ...).

    Cases that an earlier run made of the same cropped cases by the same plans, and stored in the
    same form, are left as they are; others are made, each named with the reason. Cases that are not
    in `case_ids` are removed, since training takes what it finds.

    Args:
        plans: made for this data set.
        cropped: store of cropped cases.
        output: preprocessed folder of the task.
        case_ids: cases to write.
        processes: number of worker processes, or another executor, by stage.
        form: what the cases are stored as.

    Raises:
        NnunetlikeError: cases failed; all are named, and the others are done.
    """
    for stage in plans.stages:
        patch_size = plans.stages[stage].patch_size
        target = CaseStore(output / plans.stage_folder(stage), form, patch_size)
        preprocessor = Preprocessor(plans, stage)
        journal = Journal(cropped, target, preprocessor.recipe)
        remove_cases(target, set(target.case_ids()) - set(case_ids))
        to_make = journal.to_make(case_ids)
        report_reasons(target.folder.name, to_make, len(case_ids))
        remove_leftovers(target, to_make)
        step = _CaseAtStage(preprocessor, cropped, target, journal)
        process_map(
            step,
            list(to_make),
            processes=processes(stage),
            title=f"preprocessing {target.folder.name}" if to_make else "",
            cost=step.memory,
        )


def report_reasons(what: str, to_make: Mapping[str, str], cases: int) -> None:
    """Say how many cases stand as they are and why others are made again, by name."""
    if len(to_make) < cases:
        logger.info(
            "%s: %d of %d cases are there and have not changed since", what, cases - len(to_make),
            cases,
        )  # fmt: skip
    by_reason = defaultdict(list)
    for case_id, reason in to_make.items():
        by_reason[reason].append(case_id)
    for reason, case_ids in by_reason.items():
        if reason != NEW:
            logger.info("%s: made again, since %s: %s", what, reason, ", ".join(case_ids))


def remove_cases(store: CaseStore, case_ids: set[str]) -> None:
    """Delete cases from a store of generated files, saying so."""
    for case_id in sorted(case_ids):
        logger.info("removing %s from %s: dataset.json lists it no more", case_id, store.folder)
        (store.folder / f"{case_id}.pkl").unlink(missing_ok=True)
        store.remove_arrays(case_id)


def load_cropped(store: CaseStore, case_id: str) -> tuple[Cropped, CaseRecord]:
    """Return a case as cropping left it."""
    return unstacked(store.load(case_id, unpacked=False), store.record(case_id))


def stacked(image: FloatArray, label: LabelMap) -> FloatArray:
    """Return image channels and label as one float32 array (C + 1, D, H, W)."""
    data = np.empty((len(image) + 1, *label.shape), np.float32)
    data[:-1], data[-1] = image, label
    return data


def unstacked(data: FloatArray, record: CaseRecord) -> tuple[Cropped, CaseRecord]:
    """Return the image and the label of a stacked array, and the record."""
    cropped = Cropped(image=data[:-1], label=data[-1].astype(np.int16), box=record.crop_box)
    return cropped, record


@dataclass(frozen=True)
class _CaseAtStage:
    """Preprocesses one case; picklable."""

    preprocessor: Preprocessor
    source: CaseStore
    target: CaseStore
    journal: Journal

    def memory(self, case_id: str) -> float:
        """Return about how many bytes a call takes."""
        size = unpacked_size(self.source.folder / f"{case_id}.npz")
        spacing = self.preprocessor.spacing(self.source.record(case_id))
        finer = prod(spacing) / prod(self.preprocessor.target_spacing(spacing))
        return MEMORY_FACTOR * size * (1 + finer)

    def __call__(self, case_id: str) -> None:
        prepared = self.preprocessor.apply(*load_cropped(self.source, case_id))
        self.target.write(case_id, stacked(prepared.image, prepared.label), prepared.record)
        self.journal.add(case_id)
