"""From a raw task to cropped cases and the fingerprint of the data set."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.parallel import process_map
from nnunetlike.core.serialization import atomic_path, save_pickle_with_twin
from nnunetlike.core.typing import FloatArray, Shape3, Spacing3
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.experiment_planning.planners.common import masks_for_normalization
from nnunetlike.plans.fingerprint import ChannelIntensities, Fingerprint, IntensityStatistics
from nnunetlike.plans.v1 import fingerprint_to_v1, intensities_to_v1
from nnunetlike.preprocessing.cropping import Cropped
from nnunetlike.preprocessing.intensities import foreground_sample, intensity_statistics
from nnunetlike.preprocessing.pipeline import load_cropped, remove_cases, stacked
from nnunetlike.preprocessing.preprocessor import read_and_crop

logger = logging.getLogger(__name__)

LABELS_FOLDER = "gt_segmentations"


@dataclass(frozen=True, kw_only=True)
class _CaseFacts:
    """What one case adds to the fingerprint."""

    size: Shape3
    spacing: Spacing3
    size_reduction: float
    samples: tuple[FloatArray, ...]
    """Foreground intensities of each channel; empty unless a modality is CT."""

    statistics: tuple[IntensityStatistics, ...]
    was_cropped: bool


def extract_fingerprint(raw: Path, cropped: Path, *, processes: int) -> Fingerprint:
    """Crop every training case and return what planning needs to know of the data set.

    A case whose cropped files are newer than its raw ones is not cropped again. Statistics are
    always made anew.

    Args:
        raw: raw task folder with dataset.json, imagesTr and labelsTr.
        cropped: folder that gets `ID.npz`, `ID.pkl`, `gt_segmentations`, dataset.json,
            `dataset_properties.pkl` and, for CT, `intensityproperties.pkl` (both with a JSON twin).
        processes: number of worker processes.

    Raises:
        DataError: files are missing (all are named), unreadable, or do not fit together.
    """
    dataset = DatasetSpec.load(raw / "dataset.json")
    files = training_files(dataset, raw)
    store = CaseStore(cropped)
    (cropped / LABELS_FOLDER).mkdir(parents=True, exist_ok=True)
    _remove_others(store, files)
    facts = process_map(
        partial(_case_facts, store=store, with_intensities=_has_ct(dataset.modalities)),
        files,
        processes=processes,
        name=_case_id,
        title="cropping",
    )
    kept = sum(not found.was_cropped for found in facts)
    if kept:
        logger.info("%d cases were cropped before and have not changed since", kept)
    found = dict(zip((case.case_id for case in files), facts, strict=True))
    fingerprint = _fingerprint(dataset, found)
    _note_masks(store, fingerprint)
    shutil.copyfile(raw / "dataset.json", cropped / "dataset.json")
    save_fingerprint(fingerprint, cropped)
    return fingerprint


def training_files(dataset: DatasetSpec, raw: Path) -> list[CaseFiles]:
    """Return the files of all training cases in the text order of their npz files, v1's order.

    Raises:
        DataError: there is no case, one is listed twice, or files are missing; names all of them.
    """
    if not dataset.training:
        raise DataError(f"{raw / 'dataset.json'} lists no training case")
    if not dataset.labels.foreground:
        raise DataError(
            f"{raw / 'dataset.json'} declares no label above 0, so there is nothing to segment. "
            "Add what the label maps hold to 'labels'"
        )
    if len(set(dataset.training)) != len(dataset.training):
        double = sorted({c for c in dataset.training if dataset.training.count(c) > 1})
        raise DataError(f"{raw / 'dataset.json'} lists cases twice: {', '.join(double)}")
    ids = sorted(dataset.training, key=lambda case_id: f"{case_id}.npz")
    files = [dataset.training_case(raw, case_id) for case_id in ids]
    missing = [
        str(path) for case in files for path in (*case.images, case.label) if not _is_file(path)
    ]
    if missing:
        raise DataError(
            f"{len(missing)} files that {raw / 'dataset.json'} speaks of do not exist: "
            + ", ".join(missing)
        )
    return files


def save_fingerprint(fingerprint: Fingerprint, folder: Path) -> None:
    """Write `dataset_properties.pkl` and, for CT, `intensityproperties.pkl`, with JSON twins."""
    save_pickle_with_twin(fingerprint_to_v1(fingerprint), folder / "dataset_properties.pkl")
    intensities = folder / "intensityproperties.pkl"
    if fingerprint.intensities is None:
        intensities.unlink(missing_ok=True)
        intensities.with_suffix(".json").unlink(missing_ok=True)
    else:
        save_pickle_with_twin(intensities_to_v1(fingerprint.intensities), intensities)


def _remove_others(store: CaseStore, files: Sequence[CaseFiles]) -> None:
    """Delete cropped cases and copied labels of an earlier run that are listed no more."""
    remove_cases(store, set(store.case_ids()) - {case.case_id for case in files})
    listed = {case.label.name for case in files if case.label is not None}
    for path in (store.folder / LABELS_FOLDER).iterdir():
        if path.name not in listed:
            path.unlink()


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()


def _case_id(case: CaseFiles) -> str:
    return case.case_id


def _has_ct(modalities: Mapping[int, str]) -> bool:
    return any(name in ("CT", "ct") for name in modalities.values())


def _case_facts(case: CaseFiles, *, store: CaseStore, with_intensities: bool) -> _CaseFacts:
    """Crop a case, or read what was cropped, and measure it."""
    is_current = _is_current(case, store)
    cropped: Cropped | None = None
    if not is_current:
        cropped, record = _crop(case, store)
    elif with_intensities:
        cropped, record = load_cropped(store, case.case_id)
    else:
        record = store.record(case.case_id)
    samples: tuple[FloatArray, ...] = ()
    if cropped is not None and with_intensities:
        samples = tuple(foreground_sample(channel, cropped.label) for channel in cropped.image)
    return _CaseFacts(
        size=record.size_after_cropping,
        spacing=record.original_spacing,
        size_reduction=record.size_reduction,
        samples=samples,
        statistics=tuple(intensity_statistics(sample) for sample in samples),
        was_cropped=not is_current,
    )


def _crop(case: CaseFiles, store: CaseStore) -> tuple[Cropped, CaseRecord]:
    """Write a cropped case and a copy of its label, and return it."""
    cropped, record = read_and_crop(case)
    if case.label is not None:
        with atomic_path(store.folder / LABELS_FOLDER / case.label.name) as temporary:
            shutil.copyfile(case.label, temporary)
    store.write(case.case_id, stacked(cropped.image, cropped.label), record)
    return cropped, record


def _is_current(case: CaseFiles, store: CaseStore) -> bool:
    """Tell whether a case was cropped from these very files and they have not changed since."""
    if not store.holds(case.case_id):
        return False
    record = store.record(case.case_id)
    if record.image_files != tuple(map(str, case.images)) or record.label_file != str(case.label):
        return False
    made = min(
        (store.folder / f"{case.case_id}{end}").stat().st_mtime_ns for end in (".npz", ".pkl")
    )
    sources = [path.stat() for path in (*case.images, case.label) if path is not None]
    label = store.folder / LABELS_FOLDER / f"{Path(str(case.label)).name}"
    return label.is_file() and made > max(max(s.st_mtime_ns, s.st_ctime_ns) for s in sources)


def _fingerprint(dataset: DatasetSpec, facts: Mapping[str, _CaseFacts]) -> Fingerprint:
    return Fingerprint(
        sizes=tuple(found.size for found in facts.values()),
        spacings=tuple(found.spacing for found in facts.values()),
        classes=tuple(dataset.labels.foreground),
        modalities=dataset.modalities,
        intensities=_intensities(dataset, facts) if _has_ct(dataset.modalities) else None,
        size_reductions={case_id: found.size_reduction for case_id, found in facts.items()},
    )


def _intensities(
    dataset: DatasetSpec, facts: Mapping[str, _CaseFacts]
) -> dict[int, ChannelIntensities]:
    def over_all(position: int) -> IntensityStatistics:
        samples: Sequence[FloatArray] = [found.samples[position] for found in facts.values()]
        if not any(len(sample) for sample in samples):
            raise DataError(
                f"{dataset.name}: a CT is normalised by the intensities under the labels, but no "
                "label map holds a voxel above 0. Look at labelsTr; an image that is no CT needs "
                "another name in dataset.json"
            )
        return intensity_statistics(np.concatenate(samples))

    return {
        channel: ChannelIntensities(
            overall=over_all(position),
            by_case={case_id: found.statistics[position] for case_id, found in facts.items()},
        )
        for position, channel in enumerate(dataset.modalities)
    }


def _note_masks(store: CaseStore, fingerprint: Fingerprint) -> None:
    """Write into each cropped case whether normalisation uses its non-zero mask, as v1 does."""
    masks = masks_for_normalization(fingerprint)
    for case_id in fingerprint.size_reductions:
        record = store.record(case_id)
        if record.use_nonzero_mask != masks:
            store.write_record(case_id, replace(record, use_nonzero_mask=masks))
