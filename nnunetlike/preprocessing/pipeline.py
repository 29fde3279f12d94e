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
MEMORY_FACTOR = 3
"""Memory that preprocessing takes, per byte of the arrays that go in and come out (measured)."""


def preprocess_dataset(
    planned: Sequence[Plans],
    cropped: CaseStore,
    output: Path,
    case_ids: Sequence[str],
    *,
    processes: Callable[[Plans, int], Workers],
    form: Form = "npz",
) -> None:
    """Write every case at every stage below `output` (`nnUNetData_plans_v2.1_stage0`, ...).

    Cases that an earlier run made of the same cropped cases by the same plans, and stored in the
    same form, are left as they are; others are made, each named with the reason. Cases that are not
    in `case_ids` are removed, since training takes what it finds. A cropped case is read once for
    all the stages that the same processes make.

    Args:
        planned: plans made for this data set.
        cropped: store of cropped cases.
        output: preprocessed folder of the task.
        case_ids: cases to write.
        processes: number of worker processes, or another executor, by plans and stage.
        form: what the cases are stored as.

    Raises:
        NnunetlikeError: cases failed; all are named, and the others are done.
    """
    crews: list[tuple[Workers, list[_Stage]]] = []
    for plans in planned:
        for number in plans.stages:
            workers = processes(plans, number)
            known = next((stages for crew, stages in crews if crew == workers), None)
            if known is None:
                crews.append((workers, known := []))
            known.append(_Stage.of(plans, number, cropped, output, form))
    for workers, stages in crews:
        _make(stages, cropped, case_ids, workers)


def _make(
    stages: Sequence[_Stage], cropped: CaseStore, case_ids: Sequence[str], workers: Workers
) -> None:
    """Make what is missing of some stages, case by case."""
    work: dict[str, list[int]] = defaultdict(list)
    for index, stage in enumerate(stages):
        for case_id in stage.to_make(case_ids):
            work[case_id].append(index)
    what = stages[0].target.folder.name if len(stages) == 1 else f"{len(stages)} stages"
    make = _CaseAtStages(cropped, tuple(stages))
    process_map(
        make,
        [(case_id, tuple(work[case_id])) for case_id in case_ids if case_id in work],
        processes=workers,
        name=_case_id,
        title=f"preprocessing {what}" if work else "",
        cost=make.memory,
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
class _Stage:
    """One folder of preprocessed cases, and how they are made; picklable."""

    preprocessor: Preprocessor
    target: CaseStore
    journal: Journal

    @classmethod
    def of(cls, plans: Plans, number: int, cropped: CaseStore, output: Path, form: Form) -> _Stage:
        """Return a stage of plans."""
        folder, patch_size = output / plans.stage_folder(number), plans.stages[number].patch_size
        preprocessor, target = Preprocessor(plans, number), CaseStore(folder, form, patch_size)
        return cls(preprocessor, target, Journal(cropped, target, preprocessor.recipe))

    def to_make(self, case_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the cases to make with the reasons, of which it tells; the folder is tidied."""
        remove_cases(self.target, set(self.target.case_ids()) - set(case_ids))
        to_make = self.journal.to_make(case_ids)
        report_reasons(self.target.folder.name, to_make, len(case_ids))
        remove_leftovers(self.target, to_make)
        return to_make

    def finer(self, record: CaseRecord) -> float:
        """Return how many voxels a voxel of a case becomes."""
        spacing = self.preprocessor.spacing(record)
        return prod(spacing) / prod(self.preprocessor.target_spacing(spacing))

    def make(self, case_id: str, cropped: Cropped, record: CaseRecord) -> None:
        """Write a case."""
        prepared = self.preprocessor.apply(cropped, record)
        self.target.write(case_id, prepared.stacked(), prepared.record)
        self.journal.add(case_id)


_Work = tuple[str, tuple[int, ...]]
"""A case, and the indices of the stages to make of it."""


def _case_id(work: _Work) -> str:
    return work[0]


@dataclass(frozen=True)
class _CaseAtStages:
    """Preprocesses one case; picklable."""

    source: CaseStore
    stages: tuple[_Stage, ...]

    def memory(self, work: _Work) -> float:
        """Return about how many bytes a call takes."""
        case_id, indices = work
        size = unpacked_size(self.source.folder / f"{case_id}.npz")
        record = self.source.record(case_id)
        return MEMORY_FACTOR * size * (1 + max(self.stages[i].finer(record) for i in indices))

    def __call__(self, work: _Work) -> None:
        case_id, indices = work
        cropped, record = load_cropped(self.source, case_id)
        for index in indices:
            self.stages[index].make(case_id, cropped, record)
