"""A whole data set to one or all stages of its plans, in parallel."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nnunetlike.core.parallel import process_map
from nnunetlike.core.typing import FloatArray, LabelMap
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.plans.plans import Plans
from nnunetlike.preprocessing.cropping import Cropped
from nnunetlike.preprocessing.preprocessor import Preprocessor

logger = logging.getLogger(__name__)


def preprocess_dataset(
    plans: Plans,
    cropped: CaseStore,
    output: Path,
    case_ids: Sequence[str],
    *,
    processes: Callable[[int], int],
) -> None:
    """Write every case at every stage below `output` (`nnUNetData_plans_v2.1_stage0`, ...).

    Cases of an earlier run are written anew; those that are not in `case_ids` are removed, since
    training takes what it finds.

    Args:
        plans: made for this data set.
        cropped: store of cropped cases.
        output: preprocessed folder of the task.
        case_ids: cases to write.
        processes: number of worker processes by stage.

    Raises:
        NnunetlikeError: a case failed; its name is in front of the message.
    """
    for stage in plans.stages:
        target = CaseStore(output / plans.stage_folder(stage))
        remove_cases(target, set(target.case_ids()) - set(case_ids))
        process_map(
            _CaseAtStage(Preprocessor(plans, stage), cropped, target),
            list(case_ids),
            processes=processes(stage),
            title=f"preprocessing {target.folder.name}",
        )


def remove_cases(store: CaseStore, case_ids: set[str]) -> None:
    """Delete cases from a store of generated files, saying so."""
    for case_id in sorted(case_ids):
        logger.info("removing %s from %s: dataset.json lists it no more", case_id, store.folder)
        for suffix in (".pkl", ".npz", ".npy"):
            (store.folder / f"{case_id}{suffix}").unlink(missing_ok=True)


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

    def __call__(self, case_id: str) -> None:
        prepared = self.preprocessor.apply(*load_cropped(self.source, case_id))
        (self.target.folder / f"{case_id}.npy").unlink(missing_ok=True)
        self.target.write(case_id, stacked(prepared.image, prepared.label), prepared.record)
