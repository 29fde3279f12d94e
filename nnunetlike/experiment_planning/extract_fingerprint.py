"""From a raw task to cropped cases and the fingerprint of the data set."""

from __future__ import annotations

import logging
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from nnunetlike.core.errors import DataError
from nnunetlike.core.intact import damage, unpacked_size
from nnunetlike.core.parallel import Workers, process_map
from nnunetlike.core.serialization import atomic_path, load_pickle, save_pickle_with_twin
from nnunetlike.core.typing import FloatArray, Shape3, Spacing3
from nnunetlike.data.case import CaseFiles
from nnunetlike.data.dataset import DatasetSpec
from nnunetlike.data.record import CaseRecord
from nnunetlike.data.store import CaseStore
from nnunetlike.data.video import VideoFacts
from nnunetlike.experiment_planning.planners.common import masks_for_normalization
from nnunetlike.plans.fingerprint import ChannelIntensities, Fingerprint, IntensityStatistics
from nnunetlike.plans.v1 import fingerprint_from_v1, fingerprint_to_v1, intensities_to_v1
from nnunetlike.preprocessing.cropping import Cropped
from nnunetlike.preprocessing.intensities import foreground_sample, intensity_statistics
from nnunetlike.preprocessing.journal import NEW, remove_leftovers
from nnunetlike.preprocessing.pipeline import (
    load_cropped,
    remove_cases,
    report_reasons,
    stacked,
)
from nnunetlike.preprocessing.preprocessor import read_and_crop

logger = logging.getLogger(__name__)

FAULTS_SHOWN = 10
"""Most videos whose facts are told to be wrong."""

LABELS_FOLDER = "gt_segmentations"
MEMORY_FACTOR = 10
"""Memory that cropping takes, per byte of a case's files unpacked (measured)."""


@dataclass(frozen=True, kw_only=True)
class _CaseFacts:
    """What one case adds to the fingerprint."""

    size: Shape3
    spacing: Spacing3
    size_reduction: float
    samples: tuple[FloatArray, ...]
    """Foreground intensities of each channel; empty unless a modality is CT."""

    statistics: tuple[IntensityStatistics, ...]
    video: VideoFacts | None = None
    orientation: str | None = None


def extract_fingerprint(raw: Path, cropped: Path, *, processes: Workers) -> Fingerprint:
    """Crop every training case and return what planning needs to know of the data set.

    A case whose cropped files are whole and newer than its raw ones is not cropped again; others
    are named with the reason. Intensities are measured again unless nothing has changed at all.

    Args:
        raw: raw task folder with dataset.json, imagesTr and labelsTr.
        cropped: folder that gets `ID.npz`, `ID.pkl`, `gt_segmentations`, dataset.json,
            `dataset_properties.pkl` and, for CT, `intensityproperties.pkl` (both with a JSON twin).
        processes: number of worker processes, or another executor.

    Raises:
        DataError: files are missing, unreadable, or do not fit together; all cases are named.
    """
    dataset = DatasetSpec.load(raw / "dataset.json")
    files = training_files(dataset, raw)
    store = CaseStore(cropped)
    (cropped / LABELS_FOLDER).mkdir(parents=True, exist_ok=True)
    _remove_others(store, files)
    to_crop = {
        case.case_id: reason for case in files if (reason := _why_crop(case, store)) is not None
    }
    report_reasons("cropping", to_crop, len(files))
    remove_leftovers(store, to_crop)
    known = None if to_crop else _known_intensities(dataset, store, files)
    to_measure = known is None and _has_ct(dataset)
    facts = process_map(
        partial(
            _case_facts,
            store=store,
            to_crop=frozenset(to_crop),
            with_intensities=to_measure,
        ),
        files,
        processes=processes if to_crop or to_measure else 0,
        name=_case_id,
        title="cropping" if to_crop else "measuring" if to_measure else "",
        cost=_memory,
    )
    found = dict(zip((case.case_id for case in files), facts, strict=True))
    fingerprint = _fingerprint(dataset, found, known)
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
    files, wrong = [], []
    for case_id in ids:
        try:
            files.append(dataset.training_case(raw, case_id))
        except DataError as error:  # the facts of a video; those of all are named
            wrong.append(str(error))
    missing = [
        str(path) for case in files for path in (*case.images, case.label) if not _is_file(path)
    ]
    if missing:
        wrong.insert(
            0,
            f"{len(missing)} files that {raw / 'dataset.json'} speaks of do not exist: "
            + ", ".join(missing),
        )
    if wrong:
        more = len(wrong) - FAULTS_SHOWN
        shown = [*wrong[:FAULTS_SHOWN], *([f"and {more} more like these"] if more > 0 else [])]
        raise DataError("\n".join(shown))
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


def _has_ct(dataset: DatasetSpec) -> bool:
    """Return whether intensities of the whole data set are needed; of videos they never are."""
    return dataset.video is None and any(
        name in ("CT", "ct") for name in dataset.modalities.values()
    )


def _memory(case: CaseFiles) -> float:
    files = (*case.images, *([] if case.label is None else [case.label]))
    return MEMORY_FACTOR * sum(map(unpacked_size, files))


def _case_facts(
    case: CaseFiles, *, store: CaseStore, to_crop: frozenset[str], with_intensities: bool
) -> _CaseFacts:
    """Crop a case, or read what was cropped, and measure it."""
    cropped: Cropped | None = None
    if case.case_id in to_crop:
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
        video=record.video,
        orientation=record.orientation,
    )


def _crop(case: CaseFiles, store: CaseStore) -> tuple[Cropped, CaseRecord]:
    """Write a cropped case and a copy of its label, and return it."""
    cropped, record = read_and_crop(case)
    if case.label is not None:
        with atomic_path(store.folder / LABELS_FOLDER / case.label.name) as temporary:
            shutil.copyfile(case.label, temporary)
    store.write(case.case_id, stacked(cropped.image, cropped.label), record)
    return cropped, record


def _why_crop(case: CaseFiles, store: CaseStore) -> str | None:
    """Return why a case is cropped, or None if it was and its files have not changed since."""
    packed, properties = (store.folder / f"{case.case_id}{end}" for end in (".npz", ".pkl"))
    label = store.folder / LABELS_FOLDER / Path(str(case.label)).name
    if not (packed.exists() or properties.exists()):
        return NEW
    for path in (packed, properties, label):
        if not path.is_file():
            return f"{path.name} is missing"
    if not zipfile.is_zipfile(packed):  # its end is missing
        return f"{packed.name} is truncated"
    if damage(properties):
        return f"{properties.name} {damage(properties)}"
    record = store.record(case.case_id)
    if record.image_files != tuple(map(str, case.images)) or record.label_file != str(case.label):
        return "it was cropped from other files"
    if record.video != case.video:
        return "the facts of the video have changed"
    made = min(path.stat().st_mtime_ns for path in (packed, properties))
    sources = [path.stat() for path in (*case.images, case.label) if path is not None]
    if made <= max(max(s.st_mtime_ns, s.st_ctime_ns) for s in sources):
        return "image or label have changed"
    return None


def _known_intensities(
    dataset: DatasetSpec, store: CaseStore, files: Sequence[CaseFiles]
) -> Mapping[int, ChannelIntensities] | None:
    """Return the intensities of an earlier run, or None unless they are of these very cases."""
    saved = store.folder / "dataset_properties.pkl"
    if damage(saved) is not None:
        return None
    fingerprint = fingerprint_from_v1(load_pickle(saved))
    packed = [store.folder / f"{case.case_id}.npz" for case in files]
    same = (
        set(fingerprint.size_reductions) == {case.case_id for case in files}
        and dict(fingerprint.modalities) == dict(dataset.modalities)
        and saved.stat().st_mtime_ns > max(path.stat().st_mtime_ns for path in packed)
    )
    return fingerprint.intensities if same else None


def _fingerprint(
    dataset: DatasetSpec,
    facts: Mapping[str, _CaseFacts],
    known: Mapping[int, ChannelIntensities] | None,
) -> Fingerprint:
    if known is None and _has_ct(dataset):
        known = _intensities(dataset, facts)
    videos = tuple(found.video for found in facts.values() if found.video is not None)
    return Fingerprint(
        sizes=tuple(found.size for found in facts.values()),
        spacings=tuple(found.spacing for found in facts.values()),
        classes=tuple(dataset.labels.foreground),
        modalities=dataset.modalities,
        intensities=known if _has_ct(dataset) else None,
        size_reductions={case_id: found.size_reduction for case_id, found in facts.items()},
        orientations=tuple(found.orientation for found in facts.values()),
        videos=None if dataset.video is None else videos,
        supervision=Fingerprint.supervision if dataset.video is None else dataset.video.supervision,
    )


def _intensities(
    dataset: DatasetSpec, facts: Mapping[str, _CaseFacts]
) -> dict[int, ChannelIntensities]:
    def over_all(position: int) -> IntensityStatistics:
        """Return the statistics of a channel over all cases."""
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
